"""The replacement of one generation by another.

1. A generation touches no client before all its workers are READY (surge: new beside old).
2. The old generation is told to drain, or to pause (``core.standby``), only when every new worker SERVES: the
   cut-over.
3. A rollout that fails before its cut-over costs the old generation nothing.
   These three are of ``blue-green``, and of a first generation; ``core.shifting`` has those of ``rolling``.
4. At most one rollout is before its cut-over; a later request supersedes it.
5. A rollout is settled once: at its cut-over, or when it is aborted.
6. A rollout waits while ``Policy.max_draining`` older generations drain, or as many that never served are being ended;
   while another one goes back; and, if it goes by a plan, while what lives leaves that no room for a first step.
   If those that drain are why, they are hurried: their event sources, and all that they hold when this takes a
   rollout back.
7. A rollout that has a ``before`` hook boots when that is done (``core.hooks``); until then nothing of it is there but
   its generation's number.
8. A generation that drains is gone when its last worker is, and the rollout that replaced it is done then.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from stillup.core import (
    configuration,
    hooks,
    listener_orders,
    listeners,
    orders,
    outcomes,
    side_by_side,
    slots,
    standby,
)
from stillup.core.commands import EndPreload
from stillup.core.events import Configured, ReloadAsked
from stillup.core.failures import described, said_by_app
from stillup.core.hook_settings import HookKind
from stillup.core.lifecycle import ADMITTABLE, COMING, ENDING, LEAVING, OLD_IS_LEFT, PREVIOUS_MAY_LEAVE, Step
from stillup.core.model import Failure, Fleet, Generation, Release, Rollout, Worker
from stillup.core.release import sharing
from stillup.core.states import CALLED_OFF, LOST, ROLLED_BACK, SUPERSEDED, GenerationState, RolloutState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind, check, untried
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused


def reload_asked(transition: Transition, event: ReloadAsked) -> None:
    """Bring a new generation of a release that somebody asks for.

    Raises:
        Refused: as ``reload``; ``rolled-back-before``, but to who insists; ``usage``: the strategy cannot bring so
            many workers as are wanted.
        Unchanged: nothing would, and that is good enough.
    """
    outcomes.check_wanted(transition.fleet, event)
    listener_orders.hold(transition, event.release)
    if event.hurry and transition.fleet.state not in ENDING:
        orders.hurry(transition, every=True)
    reload(transition, event.release, event.why, configured=event.configured, strategy=event.strategy)
    fleet = transition.fleet
    for strategy in (fleet.policy.strategy, fleet.rollouts[-1].strategy):
        check(strategy, fleet.size)


def reload(
    transition: Transition,
    release: Release,
    why: str,
    *,
    rolls_back: int | None = None,
    configured: Configured | None = None,
    strategy: Strategy | None = None,
) -> None:
    """Bring a new generation of a release.

    Args:
        transition: what is changed.
        release: what it is to run.
        why: who asks for it, or what does.
        rolls_back: the rollout that is taken back by that.
        configured: what the configuration says now; in force from here on, unless the rollout is aborted.
        strategy: how it is to come; None: as the policy says.

    Raises:
        Refused: ``stopping``.
    """
    if transition.fleet.state in ENDING:
        message = "the service is stopping; start it again to run a new release"
        raise Refused(message, code="stopping")
    if transition.fleet.pending is not None:
        abort(transition, transition.fleet.pending, reason=SUPERSEDED)
    number = transition.fleet.last_rollout + 1
    transition.fleet = replace(transition.fleet, last_rollout=number)
    if transition.fleet.rollouts:
        release = sharing(release, transition.fleet.rollouts[-1].release)
    rollout = Rollout(number, RolloutState.WAITING, release, why, asked=transition.now, rolls_back=rolls_back)
    if configured is not None:
        rollout = configuration.put_in_force(transition, rollout, configured)
    strategy = strategy or transition.fleet.policy.strategy
    transition.put_rollout(replace(rollout, strategy=strategy if rolls_back is None else untried(strategy)))
    in_standby = transition.fleet.standby
    begin_waiting(transition)
    if transition.fleet.pending is not None and transition.fleet.pending.state is RolloutState.WAITING:
        transition.announce("rollout.waiting", rollout=number)
        if _waits_for_drains(transition.fleet, transition.fleet.pending):
            evicted = in_standby if transition.fleet.standby is None else None
            orders.hurry(transition, every=rolls_back is not None, evicted=evicted)


def _waits_for_drains(fleet: Fleet, waiting: Rollout) -> bool:
    """Whether a rollout waits since connections keep workers of older generations that drain."""
    by_plan = waiting.strategy.kind is not StrategyKind.BLUE_GREEN or fleet.plan is not None
    return fleet.count(GenerationState.DRAINING) >= (1 if by_plan else fleet.policy.max_draining)


def call_off(transition: Transition) -> None:
    """Abort the rollout that is before its cut-over, as somebody asks.

    Raises:
        Refused: there is none, or nothing else serves.
    """
    pending, moving = transition.fleet.pending, transition.fleet.plan
    if pending is None and moving is not None:
        message = f"rollout {moving.id} goes back already: what served before it comes back, a worker at a time"
        raise Refused(message, code="out-of-order")
    if pending is None:
        message = "no rollout is before its cut-over; 'stillup rollback' takes one back that was put into service"
        raise Refused(message, code="out-of-order")
    if transition.fleet.serving is None:
        message = "nothing serves but for what this rollout brings; 'stillup stop' ends the service"
        raise Refused(message, code="out-of-order")
    abort(transition, pending, reason=CALLED_OFF)


def go_on(transition: Transition, alive: AbstractSet[int]) -> None:
    """Go on with the rollout that another supervisor has left before its cut-over; ``alive``: serials.

    One that lacks a listener is aborted, one that was cutting over and lacks a worker, and one whose workers are
    leaving since none had accepted.
    """
    pending = transition.fleet.pending
    if pending is None or pending.state.shifts:
        return
    whole = listeners.all_held(transition.fleet, pending.release)
    if pending.generation is not None:
        whole = whole and all(worker.serial in alive for worker in transition.fleet.of(pending.generation))
    if pending.state in (RolloutState.PREPARING, RolloutState.BOOTING) or not whole:
        abort(transition, pending, reason=LOST)


def begin_waiting(transition: Transition) -> bool:
    """Begin the rollout that waits, if there is one and older generations leave room; whether it was begun."""
    fleet = transition.fleet
    waiting = fleet.pending
    if waiting is None or waiting.state is not RolloutState.WAITING or fleet.plan is not None:
        return False
    back, serving = standby.returning(fleet, waiting), fleet.serving
    number = back.id if back is not None else fleet.last_generation + 1
    strategy = waiting.strategy if serving is not None and back is None else Strategy()
    if back is None and not _has_room(transition, by_plan=strategy.kind is not StrategyKind.BLUE_GREEN):
        return False
    fleet = transition.fleet
    if serving is not None and not side_by_side.may_begin(fleet, replace(waiting, strategy=strategy), serving):
        return False
    transition.fleet = replace(fleet, last_generation=max(number, fleet.last_generation))
    numbered = replace(
        waiting,
        generation=number,
        strategy=strategy,
        previous=serving.id if serving else None,
        replaced=serving.release if serving else None,
    )
    if hooks.has(fleet, numbered, HookKind.BEFORE):
        hooks.ask(transition, transition.move_rollout(numbered, Step.PREPARE), HookKind.BEFORE)
    else:
        boot(transition, numbered)
    return True


def _has_room(transition: Transition, *, by_plan: bool) -> bool:
    """Whether older generations leave room for a new one; the one in standby makes some where there is too little."""
    fleet, most = transition.fleet, transition.fleet.policy.max_draining
    away = fleet.count(GenerationState.DRAINING) + fleet.count(GenerationState.STANDBY)
    if fleet.standby is not None and (by_plan or away >= most):
        retire(transition, fleet.standby)
    return max(away, fleet.count(GenerationState.STOPPING)) < most


def boot(transition: Transition, prepared: Rollout) -> None:
    """Start the workers of the generation that a rollout brings, or let its plan; nothing is left to be done before.

    One that comes back from its standby has them.
    """
    number = prepared.generation or 0
    back = transition.fleet.generations.get(number)
    if back is None:
        new = Generation(number, GenerationState.BOOTING, prepared.release, transition.fleet.size)
        generation = transition.put_generation(new)
    else:
        generation = standby.come_back(transition, back)
    rollout = transition.move_rollout(replace(prepared, begun=transition.now), Step.BEGIN)
    transition.announce(
        "rollout.begun", rollout=rollout.id, generation=number, why=rollout.why, release=rollout.release.label
    )
    if back is not None:
        admit_if_ready(transition, generation, "")
    elif not rollout.goes_by_plan:
        for slot in range(1, generation.size + 1):
            orders.enqueue(transition, generation, slot, deaths=0)


def admit_if_ready(transition: Transition, generation: Generation, probe: str) -> None:
    """Tell all workers of a new generation to accept, once all could; ``probe``: what the last probe saw."""
    able = [worker for worker in transition.fleet.of(generation.id) if worker.state in ADMITTABLE]
    if not _fill_all_slots(generation, able):
        return
    rollout = replace(rollout_of(transition, generation), ready=transition.now, probe=probe)
    transition.move_rollout(rollout, Step.READY)
    transition.move_generation(generation, Step.READY)
    for worker in able:
        orders.accept(transition, worker)


def cut_over_if_serving(transition: Transition, generation: Generation) -> None:
    """Let a new generation take the place of the old one, once all its workers serve."""
    serve = [worker for worker in transition.fleet.of(generation.id) if worker.state is WorkerState.SERVING]
    if _fill_all_slots(generation, serve):
        cut_over(transition, rollout_of(transition, generation), generation)


def _fill_all_slots(generation: Generation, workers: Iterable[Worker]) -> bool:
    return {worker.slot for worker in workers} >= set(range(1, generation.size + 1))


def cut_over(transition: Transition, rollout: Rollout, generation: Generation) -> None:
    """Let a new generation, all of whose workers serve, take the place of the old one."""
    if transition.fleet.standby is not None:
        retire(transition, transition.fleet.standby)
    old = transition.fleet.serving
    if old is not None:
        if not standby.begin(transition, rollout, old):
            retire(transition, old)
        rollout = rollout_of(transition, generation)
    transition.move_generation(replace(generation, standby_until=None), Step.CUT_OVER)
    transition.move_service(Step.SERVE)
    transition.move_rollout(replace(rollout, cut=transition.now, before=None), Step.CUT_OVER)
    outcomes.unmark(transition, rollout.release)
    transition.announce("rollout.cut-over", rollout=rollout.id, generation=generation.id, previous=rollout.previous)
    hooks.give_up_waiting(transition)
    if rollout.rolls_back is not None:
        hooks.end_those_of(transition, rollout.rolls_back, ROLLED_BACK)
    hooks.ask(transition, rollout, HookKind.AFTER)
    _finish(transition)
    slots.refill(transition, generation.id)


def abort(transition: Transition, rollout: Rollout, *, reason: str, failure: Failure | None = None) -> None:
    """End a rollout before its cut-over, and its workers with it: at once, or as the old ones come back."""
    settle_aborted(transition, rollout, reason=reason, failure=failure)
    generation = transition.fleet.generations.get(rollout.generation or 0)
    if generation is None:
        return
    if not rollout.state.shifts:
        if not standby.stay(transition, generation):
            retire(transition, generation)
        return
    for worker in tuple(transition.fleet.of(generation.id)):
        if worker.state in COMING:
            orders.leave(transition, worker)


def keep_one(transition: Transition, rollout: Rollout, number: int) -> None:
    """Let one of the two generations of a rollout that goes back serve alone; the other leaves.

    It is of the size that is wanted, which of the new one the aborted rollout may have changed.
    """
    end_plan(transition)
    old, new = (
        transition.fleet.generations[rollout.previous or 0],
        transition.fleet.generations[rollout.generation or 0],
    )
    if number == new.id:
        transition.move_generation(replace(new, size=transition.fleet.size), Step.CUT_OVER)
        retire(transition, old)
    else:
        retire(transition, new)


def end_plan(transition: Transition) -> None:
    """Let the rollout that goes back, if there is one, be as any that was aborted."""
    rollout = transition.fleet.plan
    if rollout is not None and rollout.state is RolloutState.GOING_BACK:
        transition.move_rollout(replace(rollout, ended=transition.now), Step.END)


def settle_aborted(transition: Transition, rollout: Rollout, *, reason: str, failure: Failure | None) -> None:
    """Settle a rollout as aborted; what becomes of its workers is the caller's to say."""
    configuration.go_back(transition, rollout)
    ended = transition.now if not rollout.state.shifts else None
    watch = replace(rollout.watch, baseline={}) if rollout.watch is not None else None
    aborted = replace(rollout, ended=ended, reason=reason, failure=failure, before=None, watch=watch)
    transition.move_rollout(aborted, Step.ABORT)
    hooks.end_those_of(transition, rollout.id, reason)
    transition.announce(
        "rollout.aborted",
        rollout=rollout.id,
        generation=rollout.generation,
        reason=reason,
        why=described(failure) if failure else "",
        message=said_by_app(failure) if failure else "",
        output=failure.output if failure else "",
    )


def retire(transition: Transition, generation: Generation, *, final: bool = False) -> None:
    """Have every worker of a generation leave. A final drain is also told to those that drain already."""
    if generation.state not in LEAVING:
        served = generation.state in (GenerationState.SERVING, GenerationState.STANDBY)
        taken = Step.DRAIN if served else Step.ABORT
        given_up = replace(generation, vacancies={}, drained_from=transition.now)
        generation = transition.move_generation(given_up, taken)
    for worker in tuple(transition.fleet.of(generation.id)):
        if final:
            orders.leave(transition, worker, final=True)
        else:
            orders.give_way(transition, worker)
    bury(transition, generation)


def bury(transition: Transition, generation: Generation) -> None:
    """Forget a generation that leaves and has no worker left; what waited for that goes on."""
    if any(True for _ in transition.fleet.of(generation.id)):
        return
    crossed = transition.fleet.crossed_of(generation.id)
    transition.move_generation(generation, Step.END)
    if generation.release.settings.preload:
        transition.order(EndPreload(generation.id))
    by = [one for one in transition.fleet.rollouts if one.previous == generation.id]
    if by and by[-1].state in PREVIOUS_MAY_LEAVE:
        transition.put_rollout(replace(by[-1], crossed=crossed))
    transition.announce(
        "generation.gone",
        generation=generation.id,
        moved=crossed.given,
        sessions=crossed.sessions_given,
        closed=crossed.closed,
        told_to_close=crossed.told_to_close,
    )
    _finish(transition)
    begin_waiting(transition)


def rollout_of(transition: Transition, generation: Generation) -> Rollout:
    """The rollout that brings a generation, or takes it back."""
    brought = transition.fleet.brought_by(generation.id)
    assert brought is not None  # noqa: S101 - for the type checker: it has one until it is gone
    return brought


def end_standby(transition: Transition, number: int) -> None:
    """Have the generation leave whose standby is over; if it is not, wait for the rest.

    Raises:
        Refused: it is in no standby.
    """
    generation = transition.fleet.standby
    if generation is None or generation.id != number:
        raise Refused(f"gen {number} is in no standby", code="out-of-order")
    if (generation.standby_until or 0.0) > transition.now:
        standby.wait(transition, generation)
    else:
        retire(transition, generation)


def settle_standby(transition: Transition) -> None:
    """End the standby of which nothing is left; and the rollout behind it, once nothing is that it held."""
    generation = transition.fleet.standby
    if generation is None:
        return
    if not standby.has_paused(transition.fleet, generation):
        retire(transition, generation)
    elif standby.is_at_rest(transition.fleet, generation):
        _finish(transition)


def _finish(transition: Transition) -> None:
    """Settle the rollouts whose previous generation is gone, or holds nothing any more, or serves again."""
    for rollout in transition.fleet.rollouts:
        if rollout.state is not RolloutState.DRAINING:
            continue
        previous = transition.fleet.generations.get(rollout.previous or 0)
        rests = previous is not None and standby.is_at_rest(transition.fleet, previous)
        if previous is None or previous.state not in OLD_IS_LEFT or rests:
            crossed = rollout.crossed if previous is None else transition.fleet.crossed_of(previous.id)
            transition.move_rollout(replace(rollout, ended=transition.now, crossed=crossed), Step.END)
            transition.announce("rollout.done", rollout=rollout.id, generation=rollout.generation)
