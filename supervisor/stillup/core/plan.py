"""What a rolling rollout may do next: a function of what is there, so that nothing that happens can spoil it.

1. Nothing of a plan is stored but its strategy. Who comes and who goes, how many of each serve, and what that leaves
   room for is counted anew after each event: a worker that dies, another number of workers, another supervisor in
   mid-plan need no repair.
2. Of the two generations the one comes that is to stay: the new one, or, on the way back, the old one. The workers of
   the other go; so does one of a slot that is not wanted any more, one that hangs, and one that has its replacement.
3. A worker is started while fewer than N + K processes of workers live, of whatever generation; N is the size of the
   generation that comes. Until one of the new generation has booted it is that of the old one, if that is larger: a
   reload to fewer workers takes none of the old away before a release that does not boot is found.
4. One that serves is told to leave while, without it, N - M serve, and at least one. One that hangs does not count as
   one that serves, and goes before those that do; nor does one that has yet to come back to a new supervisor.
5. Where there is no room, and nobody is on the way who will make some, one leaves that serves nobody. Where there is
   less room than when it was to be started, one that is queued is not started.
6. Until one of those that come serves, one of the others that dies is replaced by its like, once one of those that come
   is on its way: whether that will ever serve is not known yet. On the way back it is if fewer than N - M would serve,
   and none of those that come can be started: what served before may boot no more.
7. A way back has no end if what is missing of the old generation died young, in each slot, twice in a row or more.
   That is not asked before all that serve by the record have come back to a new supervisor: they may be what is missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from stillup.core.lifecycle import COMING, ENDED_BY_ORDER
from stillup.core.model import Fleet, Generation, Rollout, Worker
from stillup.core.states import WorkerState
from stillup.core.strategy import Strategy, StrategyKind, canary_workers
from stillup.core.values import replace

HOPELESS: Final = 2
"""Deaths in a row after which a slot of the old generation is not waited for, if a reload waits."""


class PlanStep(StrEnum):
    """What is to be done next."""

    RESTORE = "restore"
    """Start a worker in the place of one that died, of those that go."""
    START = "start"
    """Start a worker of those that come."""
    RETIRE = "retire"
    """Have one leave of those that go: one that hangs, or else one that serves."""
    DROP = "drop"
    """Do not start one that is queued."""
    MAKE_ROOM = "make-room"
    """Have one leave of those that go and serve nobody: one that is on its way into service, or else hangs."""


class Headcount(msgspec.Struct, frozen=True):
    """How many workers there are, by what they do."""

    serving: int = 0
    coming: int = 0
    queued: int = 0
    """Of those that come into service, those that are not started yet."""
    hung: int = 0
    away: int = 0
    """They serve by the record, and this supervisor has not heard of them yet."""
    leaving: int = 0

    @property
    def live(self) -> int:
        """How many processes that is."""
        return self.serving + self.coming + self.hung + self.away + self.leaving


class Sides(msgspec.Struct, frozen=True):
    """The two sides of a plan, and who else lives."""

    size: int
    """N."""
    comes: Headcount
    goes: Headcount
    vacant: int = 0
    """Slots in which one may be started that comes."""
    bereft: int = 0
    """Slots in which one has died that goes, and may be replaced."""
    others: int = 0
    """Live workers of other generations, which are all on their way out."""


def next_step(strategy: Strategy, sides: Sides) -> PlanStep | None:
    """What may be done next; None: nothing, until something happens."""
    comes, goes, size = sides.comes, sides.goes, sides.size
    # What cannot be is refused when it is asked for. But a generation on its way back may have another size.
    surge = strategy.max_surge if strategy.max_surge > 0 or strategy.max_unavailable < size else 1
    live = comes.live + goes.live + sides.others
    if live > size + surge and (comes.queued or goes.queued):
        return PlanStep.DROP
    if live < size + surge:
        if sides.bereft and (comes.coming or not sides.vacant):
            return PlanStep.RESTORE
        if sides.vacant:
            return PlanStep.START
    without = comes.serving + goes.serving - (0 if goes.hung else 1)
    if (goes.hung or goes.serving) and without >= max(1, size - strategy.max_unavailable):
        return PlanStep.RETIRE
    awaited = comes.coming + comes.leaving + goes.leaving + comes.away + goes.away + sides.others
    if sides.vacant and (goes.coming or goes.hung) and not awaited:
        return PlanStep.MAKE_ROOM
    return None


def next_steps(strategy: Strategy, sides: Sides) -> list[PlanStep]:
    """All that may be done now, in this order."""
    steps: list[PlanStep] = []
    while (step := next_step(strategy, sides)) is not None:
        steps.append(step)
        sides = _after(sides, step)
    return steps


def count(fleet: Fleet, rollout: Rollout, now: float) -> Sides:
    """The two sides of the plan of a rollout that has begun."""
    generation = coming_generation(fleet, rollout)
    mine = _of_both(fleet, rollout)
    going = {worker.serial for worker in _going(fleet, rollout, generation)}
    return Sides(
        wanted(fleet, rollout),
        _headcount(worker for worker in mine if worker.serial not in going),
        _headcount(worker for worker in mine if worker.serial in going),
        vacant=len(vacant(fleet, generation, now)),
        bereft=len(bereft(fleet, rollout, now)),
        others=len(fleet.workers) - len(mine),
    )


def may_begin(fleet: Fleet, rollout: Rollout, old: Generation) -> bool:
    """Whether a rollout that waits could do its first step now; who comes to serve in the old generation is awaited."""
    going = list(fleet.of(old.id))
    others = len(fleet.workers) - len(going)
    sides = Sides(max(fleet.size, old.size), Headcount(), _headcount(going), vacant=fleet.size, others=others)
    step = next_step(rollout.strategy, sides)
    return step in (PlanStep.START, PlanStep.RETIRE) or (step is PlanStep.MAKE_ROOM and not sides.goes.coming)


def wanted(fleet: Fleet, rollout: Rollout) -> int:
    """N: how many workers are to serve while the plan of a rollout moves."""
    size = coming_generation(fleet, rollout).size
    is_proven = rollout.state.aborted or rollout.ready is not None
    return size if is_proven else max(size, fleet.generations[rollout.previous or 0].size)


def bounds(rollout: Rollout, size: int) -> Strategy:
    """The bounds of a rollout that goes by this; its way back takes no more room than its way forth."""
    strategy = rollout.strategy
    if not strategy.kind.watches or (strategy.rolls and was_passed(rollout)):
        return strategy
    return Strategy(StrategyKind.ROLLING, size if was_passed(rollout) else canary_workers(strategy, size), 0)


def was_passed(rollout: Rollout) -> bool:
    """Whether it had a canary, and that was passed."""
    return rollout.watch is not None and rollout.watch.passed


def coming_generation(fleet: Fleet, rollout: Rollout) -> Generation:
    """The generation that is to stay, of the two of a rollout that has begun."""
    number = rollout.previous if rollout.state.aborted else rollout.generation
    return fleet.generations[number or 0]


def going_generation(rollout: Rollout) -> int:
    """The number of the other one."""
    return (rollout.generation if rollout.state.aborted else rollout.previous) or 0


def vacant(fleet: Fleet, generation: Generation, now: float) -> list[int]:
    """The slots of a generation that comes in which a worker may be started now.

    One that failed keeps its slot until its exit, which says why; and a slot whose last worker died young waits.
    """
    taken = {worker.slot for worker in fleet.of(generation.id) if _fills(worker)}
    taken.update(slot for slot, vacancy in generation.vacancies.items() if vacancy.until > now)
    return [slot for slot in range(1, generation.size + 1) if slot not in taken]


def bereft(fleet: Fleet, rollout: Rollout, now: float) -> list[int]:
    """The slots of the generation that goes in which a worker died, and may be replaced by its like now.

    Of the old generation until one of the new one serves; of the new one as many as are missing, where no old one can
    be started.
    """
    goes = fleet.generations[going_generation(rollout)]
    able = [slot for slot in vacant(fleet, goes, now) if slot in goes.vacancies]
    if not rollout.state.aborted:
        served = any(worker.state is WorkerState.SERVING for worker in fleet.of(rollout.generation or 0))
        return [] if served else able
    if vacant(fleet, coming_generation(fleet, rollout), now):
        return []
    there = sum(not worker.state.retiring and not _hangs(worker) for worker in _of_both(fleet, rollout))
    size = wanted(fleet, rollout)
    return able[: max(0, size - bounds(rollout, size).max_unavailable - there, 1 - there)]


def has_no_end(fleet: Fleet, rollout: Rollout) -> bool:
    """Whether a rollout goes back to a generation whose workers boot no more, in any slot that is empty."""
    generation = coming_generation(fleet, rollout)
    filled = {worker.slot: worker for worker in fleet.of(generation.id) if _fills(worker)}
    missing = [
        filled[slot].deaths
        if slot in filled
        else generation.vacancies[slot].deaths
        if slot in generation.vacancies
        else 0
        for slot in range(1, generation.size + 1)
        if slot not in filled or filled[slot].state is not WorkerState.SERVING
    ]
    is_known = _headcount(_of_both(fleet, rollout)).away == 0
    return rollout.state.aborted and is_known and missing != [] and min(missing) >= HOPELESS


def is_complete(fleet: Fleet, generation: Generation) -> bool:
    """Whether in each slot of a generation a worker serves, and is heard."""
    served = {worker.slot for worker in fleet.of(generation.id) if serves(worker)}
    return served >= set(range(1, generation.size + 1))


def next_to_leave(fleet: Fleet, rollout: Rollout, step: PlanStep) -> list[Worker]:
    """Who may leave by that step, in this order: of a slot that is not wanted any more, then who is to be replaced.

    Of others those of the last slots: those that are left are the first, as they would be with fewer workers.
    """
    generation = coming_generation(fleet, rollout)
    going = _going(fleet, rollout, generation)
    if step is PlanStep.DROP:
        queued = [worker for worker in _of_both(fleet, rollout) if worker.state is WorkerState.QUEUED]
        return sorted(queued, key=lambda one: (one not in going, -one.slot, one.serial))
    if step is PlanStep.RETIRE:
        able = [worker for worker in going if _hangs(worker) or serves(worker)]
    else:
        able = [worker for worker in going if _hangs(worker) or worker.state in COMING]
    hung_first = step is PlanStep.RETIRE
    return sorted(
        able,
        key=lambda one: (
            _hangs(one) is not hung_first,
            one.generation != generation.id,
            one.recycle == "",
            -one.slot,
            one.serial,
        ),
    )


def serves(worker: Worker) -> bool:
    """Whether a worker serves, and was heard by this supervisor, and not too long ago."""
    return worker.state is WorkerState.SERVING and worker.hung is None and worker.heard is not None


def _of_both(fleet: Fleet, rollout: Rollout) -> list[Worker]:
    both = (rollout.previous, rollout.generation)
    return [worker for worker in fleet.workers.values() if worker.generation in both]


def _going(fleet: Fleet, rollout: Rollout, comes: Generation) -> list[Worker]:
    """The workers that go, of both generations."""
    mine = _of_both(fleet, rollout)
    # Those beside which one that is to be replaced has its replacement.
    staying = {one.slot for one in mine if one.generation == comes.id and serves(one) and not one.recycle}
    return [
        one
        for one in mine
        if one.generation != comes.id
        or one.slot > comes.size
        or _hangs(one)
        or (one.recycle != "" and one.slot in staying)
    ]


def _hangs(worker: Worker) -> bool:
    return worker.state is WorkerState.SERVING and worker.hung is not None


def _fills(worker: Worker) -> bool:
    if worker.failure is not None and worker.state in ENDED_BY_ORDER:
        return True
    return not worker.state.retiring and not _hangs(worker)


def _headcount(workers: Iterable[Worker]) -> Headcount:
    counted = Counter(part for worker in workers for part in _parts(worker))
    return Headcount(**counted)


def _parts(worker: Worker) -> tuple[str, ...]:
    """The fields of ``Headcount`` in which a worker counts."""
    if worker.state.retiring:
        return ("leaving",)
    if worker.state in COMING:
        return ("coming", "queued") if worker.state is WorkerState.QUEUED else ("coming",)
    if _hangs(worker):
        return ("hung",)
    return ("serving" if serves(worker) else "away",)


def _after(sides: Sides, step: PlanStep) -> Sides:
    """The same, once that step is done."""
    comes, goes = sides.comes, sides.goes
    match step:
        case PlanStep.RESTORE:
            return replace(sides, goes=replace(goes, coming=goes.coming + 1), bereft=sides.bereft - 1)
        case PlanStep.START:
            return replace(sides, comes=replace(comes, coming=comes.coming + 1), vacant=sides.vacant - 1)
        case PlanStep.DROP if goes.queued:
            fewer = replace(goes, coming=goes.coming - 1, queued=goes.queued - 1)
            return replace(sides, goes=fewer)
        case PlanStep.DROP:
            fewer = replace(comes, coming=comes.coming - 1, queued=comes.queued - 1)
            return replace(sides, comes=fewer, vacant=sides.vacant + 1)
        case PlanStep.MAKE_ROOM if goes.coming:
            left = replace(goes, coming=goes.coming - 1, queued=max(0, goes.queued - 1))
        case _ if goes.hung:
            left = replace(goes, hung=goes.hung - 1)
        case _:
            left = replace(goes, serving=goes.serving - 1)
    return replace(sides, goes=replace(left, leaving=left.leaving + 1))
