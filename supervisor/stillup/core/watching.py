"""The watch of a canary: from when all its workers serve until there is a verdict.

1. It begins when as many new workers serve as the canary has. Each old one gives it its share of the idle connections
   then, since kept connections would stay where they are. Meanwhile nothing is started but in the place of what dies
   (``core.side_by_side``).
2. At the end of each interval both sides are compared (``core.gates``). A canary that is worse in two running fails at
   once; none is passed before ``canary_time`` is over, nor by an interval that says nothing, nor while one of it is not
   heard. What cannot be told then is held, looked at again after each interval, and given up after ``canary_timeout``.
3. A worker of the canary that dies, hangs, or is cut off, fails it without a comparison: as before any cut-over.
4. Workers count for all their lives; what it was when the interval began is on record, and so is all that was counted
   and suspected before. So another supervisor goes on with the watch, and only the interval that was open is longer.
   What a worker had counted in it and did not outlive is lost.
5. Somebody may pass it by hand (promote), or call the rollout off.
"""

from __future__ import annotations

from collections.abc import Mapping

from stillup.core import gates, rollout, side_by_side
from stillup.core.commands import GiveShare
from stillup.core.lifecycle import Step
from stillup.core.model import Failure, Fleet, Rollout, Worker
from stillup.core.plan import serves
from stillup.core.policy import TimerKind
from stillup.core.states import GATE, INCONCLUSIVE, RolloutState
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.core.watch import Comparison, Verdict, Watch, WatchReason
from stillup.core.worker_figures import Answers
from stillup.errors import Refused


def begin(transition: Transition, moving: Rollout) -> None:
    """Watch a canary, all of whose workers serve."""
    fleet, now, strategy = transition.fleet, transition.now, moving.strategy
    sides = side_by_side.both_sides(fleet, moving)
    until, expires = now + strategy.canary_time, now + strategy.canary_timeout
    baseline = {serial: worker.figures.answers for serial, worker in _reported(fleet, moving).items()}
    watch = Watch(now, until, expires, due=now, workers=sides.wanted, baseline=baseline)
    moving = transition.move_rollout(replace(moving, watch=watch), Step.WATCH)
    transition.announce(
        "canary.watching",
        rollout=moving.id,
        generation=moving.generation,
        workers=sides.wanted,
        of=sides.new.size,
        seconds=strategy.canary_time,
    )
    for worker in fleet.of(sides.old.id):
        if serves(worker):
            transition.order(GiveShare(worker.serial, sides.share))
    _look_later(transition, moving, watch)


def look(transition: Transition, number: int) -> None:
    """Compare both sides: it is time.

    Raises:
        Refused: it is not, or there is nothing to compare.
    """
    moving, watch = _watched(transition.fleet, "it is not looked at any more")
    if moving.id != number or transition.now < watch.due:
        raise Refused(f"the canary of rollout {number} is not to be looked at now", code="out-of-order")
    strategy, workers = moving.strategy, _reported(transition.fleet, moving)
    baseline = _baseline(transition.fleet, watch, moving, workers)
    counts = {
        side: gates.counted({n: w.figures.answers for n, w in workers.items() if w.generation == side}, baseline)
        for side in (moving.previous, moving.generation)
    }
    old, new = counts[moving.previous], counts[moving.generation]
    all_old, all_new = gates.together((watch.old, old)), gates.together((watch.new, new))
    now = replace(watch, baseline=baseline, comparison=gates.compare(all_old, all_new))
    says_nothing = gates.says_nothing(old, new, strategy)
    if not says_nothing:
        later = {serial: worker.figures.answers for serial, worker in workers.items()}
        found = gates.worse(old, new, strategy) if strategy.gated else ()
        now = replace(now, old=all_old, new=all_new, baseline={**baseline, **later}, suspected=found)
        if again := [reason for reason in found if reason in watch.suspected]:
            text = gates.text(again[0], gates.compare(old, new))
            _fail(transition, replace(moving, watch=replace(now, verdict=Verdict.FAIL, reason=again[0])), text)
            return
    moving = transition.put_rollout(replace(moving, watch=now))
    if transition.now < watch.until:
        _look_later(transition, moving, now)
        return
    share = side_by_side.both_sides(transition.fleet, moving).share
    shown = gates.compare(all_old, all_new)
    doubt = now.suspected[0] if now.suspected else gates.doubt(all_old, all_new, strategy, share)
    if says_nothing and doubt is not WatchReason.FEW_REQUESTS:  # enough in all, and not of late
        doubt, shown = WatchReason.FEW_REQUESTS, gates.compare(old, new)
    if not strategy.gated:
        doubt = None
    if _is_silent(transition, moving):
        doubt = WatchReason.SILENT
    if doubt is None:
        _pass(transition, moving, now, Verdict.PASS if strategy.gated else Verdict.UNGATED)
    elif transition.now < watch.expires:
        _hold(transition, moving, now, doubt, shown)
    else:
        undecided = replace(moving, watch=replace(now, verdict=Verdict.INCONCLUSIVE, reason=doubt))
        failure = Failure(INCONCLUSIVE, gates.text(doubt, shown))
        rollout.abort(transition, undecided, reason=INCONCLUSIVE, failure=failure)


def promote(transition: Transition, why: str) -> None:
    """Pass a canary by hand, whatever is known of it.

    Raises:
        Refused: none is watched.
    """
    moving, watch = _watched(transition.fleet, "there is nothing to promote")
    transition.announce("canary.promoted", rollout=moving.id, generation=moving.generation, why=why)
    _pass(transition, moving, watch, Verdict.PROMOTED)


def take_over(transition: Transition) -> None:
    """Go on with the watch that another supervisor has begun: no timer of it is there."""
    moving = transition.fleet.plan
    if moving is not None and moving.state is RolloutState.WATCHING and moving.watch is not None:
        _look_later(transition, moving, moving.watch)


def lose_failed(transition: Transition, moving: Rollout) -> bool:
    """Take the rollout back if a worker of its canary hangs, or was cut off; whether one is."""
    for one in transition.fleet.of(moving.generation or 0):
        cut_off = one.failure if one.failure is not None and one.failure.stage == "channel" else None
        failure = cut_off if one.hung is None else Failure("hang", "hangs")
        if failure is not None:
            named = replace(failure, worker=one.name, pid=one.pid)
            rollout.abort(transition, moving, reason=failure.stage, failure=named)
            return True
    return False


def _watched(fleet: Fleet, otherwise: str) -> tuple[Rollout, Watch]:
    moving = fleet.plan
    if moving is None or moving.state is not RolloutState.WATCHING or moving.watch is None:
        raise Refused(f"no canary is watched: {otherwise}", code="out-of-order")
    return moving, moving.watch


def _reported(fleet: Fleet, moving: Rollout) -> Mapping[int, Worker]:
    """The workers of both sides whose figures are known, by serial: a new supervisor knows none at first."""
    both = (moving.previous, moving.generation)
    return {one.serial: one for one in fleet.workers.values() if one.generation in both and one.reported > 0}


def _baseline(fleet: Fleet, watch: Watch, moving: Rollout, workers: Mapping[int, Worker]) -> dict[int, Answers]:
    """What was counted before the interval, of all that live.

    Of an old worker that was there before the watch, and could not be asked when that began, it is what it says first.
    """
    known = {serial: answers for serial, answers in watch.baseline.items() if serial in fleet.workers}
    for serial, worker in workers.items():
        if worker.generation == moving.previous and worker.spawned < watch.began:
            known.setdefault(serial, worker.figures.answers)
    return known


def _is_silent(transition: Transition, moving: Rollout) -> bool:
    """Whether of the canary not all serve, or one was not heard for an interval, and the time between two reports.

    Of that no more than another interval counts, lest one that hangs is not missed in a short watch.
    """
    interval = gates.interval(moving.strategy)
    since = transition.now - interval - min(interval, moving.release.settings.report_interval)
    heard = [one.heard or 0.0 for one in transition.fleet.of(moving.generation or 0) if serves(one)]
    return not side_by_side.canary_is_complete(transition.fleet, moving) or min(heard) < since


def _look_later(transition: Transition, moving: Rollout, watch: Watch) -> None:
    """Look again after an interval, or when the watch, or what is held, is over, if that is hardly later."""
    seconds = gates.interval(moving.strategy)
    ends = watch.until if transition.now < watch.until else watch.expires
    if 0 < ends - transition.now < 1.5 * seconds:
        seconds = ends - transition.now
    transition.put_rollout(replace(moving, watch=replace(watch, due=transition.now + seconds)))
    transition.set_timer(TimerKind.GATE, moving.id, seconds)


def _hold(transition: Transition, moving: Rollout, watch: Watch, reason: WatchReason, shown: Comparison) -> None:
    """Go on since it cannot be told; ``shown``: the figures that this is said of."""
    held = replace(watch, held=transition.now if watch.held is None else watch.held, reason=reason)
    if watch.reason is not reason:
        transition.announce(
            "canary.held",
            rollout=moving.id,
            generation=moving.generation,
            reason=reason,
            seconds=watch.expires - transition.now,
            old_requests=shown.old.requests,
            new_requests=shown.new.requests,
        )
    _look_later(transition, moving, held)


def _pass(transition: Transition, moving: Rollout, watch: Watch, verdict: Verdict) -> None:
    passed = replace(moving, watch=replace(watch, verdict=verdict, reason=None, baseline={}))
    transition.move_rollout(passed, Step.SHIFT)
    if verdict is not Verdict.PROMOTED:
        why = gates.summary(watch.comparison) if verdict is Verdict.PASS and watch.comparison else "not judged"
        transition.announce("canary.passed", rollout=moving.id, generation=moving.generation, why=why)


def _fail(transition: Transition, moving: Rollout, text: str) -> None:
    rollout.abort(transition, moving, reason=GATE, failure=Failure(GATE, text))
