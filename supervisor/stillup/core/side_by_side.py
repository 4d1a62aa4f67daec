"""What a canary rollout may do next while all the old workers stay: a function of what is there, as ``core.plan``.

1. Beside the N workers of the old generation come C of the new one, as long as that is on trial; then, unless the rest
   comes by ``core.plan``, as many as are wanted of it.
2. Slots of both are filled, those of the old first, while fewer processes of workers live than both together want.
   Where more do, one that is queued is not started: it was wanted before this rollout had begun, or of more workers.
3. Of either leave those beyond what is wanted of it, while without them so many serve, and N of both: old ones may have
   died. Who is to be replaced, or hangs, does once another serves in its place; and so does who hangs where there is no
   room, and nobody is on the way who will make some.
"""

from __future__ import annotations

import msgspec

from stillup.core import plan
from stillup.core.lifecycle import COMING
from stillup.core.model import Fleet, Generation, Rollout, Worker
from stillup.core.states import WorkerState
from stillup.core.strategy import canary_workers


class SlotToFill(msgspec.Struct, frozen=True):
    """Where a worker may be started."""

    generation: int
    slot: int


class BothSides(msgspec.Struct, frozen=True):
    """The two generations, and how many workers are wanted of the new one."""

    old: Generation
    new: Generation
    wanted: int

    @property
    def most(self) -> int:
        """Live processes of workers, of all generations."""
        return self.old.size + self.wanted

    @property
    def share(self) -> float:
        """Of all workers those of the new generation; of 1."""
        return self.wanted / self.most


def both_sides(fleet: Fleet, rollout: Rollout) -> BothSides:
    """The two sides of a rollout that has begun."""
    old, new = (fleet.generations[number or 0] for number in (rollout.previous, rollout.generation))
    return BothSides(old, new, canary_workers(rollout.strategy, new.size) if rollout.on_trial else new.size)


def next_step(fleet: Fleet, rollout: Rollout, now: float) -> list[SlotToFill] | Worker | None:
    """What may be done next: start workers there, have that one leave; None: nothing, until something happens."""
    sides = both_sides(fleet, rollout)
    room = max(0, sides.most - len(fleet.workers))
    if slots := _slots_to_fill(fleet, sides, now)[:room]:
        return slots
    ours = [*fleet.of(sides.old.id), *fleet.of(sides.new.id)]
    queued = [worker for worker in ours if worker.state is WorkerState.QUEUED]
    if queued and len(fleet.workers) > sides.most:
        return queued[-1]
    surplus = [worker for worker in ours if _is_beyond(sides, worker) and _can_be_spared(fleet, sides, worker)]
    if surplus:
        return surplus[-1]
    hung = [worker for worker in ours if worker.state is WorkerState.SERVING and worker.hung is not None]
    replaced = [worker for worker in ours if worker.recycle and _serves_another(fleet, worker)]
    moves = any(worker.state in COMING or worker.state.retiring for worker in fleet.workers.values())
    able = replaced or ([] if room or moves else hung)
    return able[0] if able else None


def canary_is_complete(fleet: Fleet, rollout: Rollout) -> bool:
    """Whether as many workers of the new generation serve, and are heard, as are wanted of it."""
    sides = both_sides(fleet, rollout)
    served = {worker.slot for worker in fleet.of(sides.new.id) if plan.serves(worker)}
    return served >= set(range(1, sides.wanted + 1))


def keeps_old(rollout: Rollout) -> bool:
    """Whether all the old workers stay until the cut-over of a rollout, though new ones serve."""
    is_canary = rollout.strategy.kind.watches and rollout.state.pending
    return is_canary and not (rollout.strategy.rolls and plan.was_passed(rollout))


def may_begin(fleet: Fleet, rollout: Rollout, old: Generation) -> bool:
    """Whether what lives leaves a rollout that waits room for its first step, whatever its strategy."""
    kind = rollout.strategy.kind
    if kind.rolls:
        return plan.may_begin(fleet, rollout, old)
    return not kind.watches or len(fleet.workers) < old.size + canary_workers(rollout.strategy, fleet.size)


def _slots_to_fill(fleet: Fleet, sides: BothSides, now: float) -> list[SlotToFill]:
    return [
        SlotToFill(generation.id, slot)
        for generation, wanted in ((sides.old, sides.old.size), (sides.new, sides.wanted))
        for slot in plan.vacant(fleet, generation, now)
        if slot <= wanted
    ]


def _is_beyond(sides: BothSides, worker: Worker) -> bool:
    wanted = sides.old.size if worker.generation == sides.old.id else sides.wanted
    return worker.slot > wanted and not worker.state.retiring


def _can_be_spared(fleet: Fleet, sides: BothSides, worker: Worker) -> bool:
    """Whether without a worker as many as are wanted of its generation serve, and of both as many as of the old one."""
    if not plan.serves(worker):
        return True
    wanted = sides.old.size if worker.generation == sides.old.id else sides.wanted
    old, new = (
        sum(plan.serves(one) for one in fleet.of(side.id) if one.serial != worker.serial)
        for side in (sides.old, sides.new)
    )
    return (old if worker.generation == sides.old.id else new) >= wanted and old + new >= sides.old.size


def _serves_another(fleet: Fleet, worker: Worker) -> bool:
    """Whether one that stays serves in the slot of a worker that serves."""
    others = (one for one in fleet.of(worker.generation) if one.slot == worker.slot and not one.recycle)
    return worker.state is WorkerState.SERVING and any(plan.serves(one) for one in others)
