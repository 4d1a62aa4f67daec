"""A generation in standby: it served before the one that serves, and its workers are paused instead of leaving.

1. At the cut-over of a rollout with a standby the old workers that are well pause: they take nothing new, give away and
   finish what they hold as in a drain, and keep their app started. One that hangs, is to be replaced, or does not serve
   leaves. The standby is over after ``Strategy.standby`` seconds.
2. At most one generation is in standby: the one before that which serves. It counts among those that drain, and is the
   first to make room: at the limit of those, for a rolling or a canary rollout, and at the next cut-over, it drains and
   leaves.
3. A rollback to it brings no new generation. All its workers accept at once; slots whose worker was lost, or that are
   wanted since, are filled first. If that is aborted before they accept, what is paused stays in standby.
4. What is taken back by a rollback is not paused: it drains.
5. It does not come back where the generation that serves listens on more than it does: nobody would accept there.
6. A worker that is lost is not replaced; when none is left the standby is over. One that hangs is killed.
"""

from __future__ import annotations

from stillup.core import listeners, orders
from stillup.core.lifecycle import COMING, Step
from stillup.core.model import Fleet, Generation, Rollout, Worker
from stillup.core.policy import TimerKind
from stillup.core.states import GenerationState, WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace


def begin(transition: Transition, rollout: Rollout, old: Generation) -> bool:
    """Pause what a rollout has replaced, if it is to; False: it is to leave."""
    seconds = rollout.strategy.standby
    able = {worker.serial for worker in transition.fleet.of(old.id) if _may_pause(old, worker)}
    if not (able and seconds > 0) or rollout.rolls_back is not None or rollout.strategy.is_bounded:
        return False
    until = transition.now + seconds
    transition.move_generation(replace(old, vacancies={}, standby_until=until), Step.PAUSE)
    for worker in tuple(transition.fleet.of(old.id)):
        if worker.serial in able:
            orders.pause(transition, worker)
        else:
            orders.give_way(transition, worker)
    transition.set_timer(TimerKind.STANDBY, old.id, seconds)
    transition.announce("generation.standby", generation=old.id, workers=len(able), seconds=seconds)
    return True


def returning(fleet: Fleet, rollout: Rollout) -> Generation | None:
    """The generation that a rollout brings back from its standby; None: it has to bring a new one."""
    taken_back = fleet.rollout(rollout.rolls_back) if rollout.rolls_back is not None else None
    back, serving = fleet.standby, fleet.serving
    if taken_back is None or back is None or serving is None or back.id != taken_back.previous:
        return None
    whole = back.release == rollout.release and listeners.covers(fleet, back.release, serving.release)
    return back if whole else None


def come_back(transition: Transition, back: Generation) -> Generation:
    """Let a standby be the new generation of a rollout: of the size that is wanted, with a worker in each slot."""
    fleet = transition.fleet
    coming = replace(back, size=fleet.size, crossed_before=fleet.crossed_of(back.id) + back.crossed_before)
    coming = transition.move_generation(coming, Step.BEGIN)
    shrink(transition, coming, fleet.size)
    for slot in range(1, coming.size + 1):
        fill(transition, coming, slot)
    return coming


def shrink(transition: Transition, generation: Generation, size: int) -> None:
    """Have those leave that are paused in slots that are not wanted any more."""
    for worker in tuple(transition.fleet.of(generation.id)):
        if worker.state is WorkerState.PAUSED and worker.slot > size:
            orders.leave(transition, worker)


def fill(transition: Transition, coming: Generation, slot: int) -> None:
    """Start a worker in a slot of a generation that comes back, unless one is there, or the slot is not wanted."""
    here = (worker for worker in transition.fleet.of(coming.id) if worker.slot == slot)
    if slot <= coming.size and all(worker.state.retiring for worker in here):
        orders.enqueue(transition, coming, slot, deaths=0)


def stay(transition: Transition, generation: Generation) -> bool:
    """Keep in standby what was to come back, and has not accepted yet; False: nothing of it is paused."""
    if generation.state is not GenerationState.BOOTING or not has_paused(transition.fleet, generation):
        return False
    transition.move_generation(generation, Step.PAUSE)
    for worker in tuple(transition.fleet.of(generation.id)):
        if worker.state in COMING:
            orders.leave(transition, worker)
    wait(transition, generation)
    return True


def wait(transition: Transition, generation: Generation) -> None:
    """Set the timer at which a standby is over."""
    left = (generation.standby_until or 0.0) - transition.now
    transition.set_timer(TimerKind.STANDBY, generation.id, max(0.0, left))


def has_paused(fleet: Fleet, generation: Generation) -> bool:
    """Whether a worker of a generation is paused."""
    return any(worker.state is WorkerState.PAUSED for worker in fleet.of(generation.id))


def is_at_rest(fleet: Fleet, generation: Generation) -> bool:
    """Whether a generation is in standby, and nothing is left of what it held when it served."""
    workers = fleet.of(generation.id)
    in_standby = generation.state is GenerationState.STANDBY
    return in_standby and all(one.state is WorkerState.PAUSED and one.figures.at_rest for one in workers)


def lost(transition: Transition, coming: Generation, worker: Worker) -> bool:
    """Go on from the end of a worker of a generation that comes back, which was of its standby; False: it was not."""
    if coming.standby_until is None:
        return False
    if coming.state is GenerationState.BOOTING and (
        worker.state in (WorkerState.PAUSED, WorkerState.DRAINING) or worker.exit_expected
    ):
        fill(transition, coming, worker.slot)
        return True
    others = (one for one in transition.fleet.of(coming.id) if one.slot == worker.slot and not one.state.retiring)
    return worker.state.retiring and (worker.slot > coming.size or any(True for _ in others))


def _may_pause(old: Generation, worker: Worker) -> bool:
    well = worker.state is WorkerState.SERVING and worker.hung is None and not worker.recycle
    return well and worker.slot <= old.size
