"""The decisions: ``step(fleet, event, now)`` says what the fleet becomes and what is to be done."""

from __future__ import annotations

from typing import assert_never

import msgspec

from stillup.core import (
    adoption,
    arrivals,
    boot_queue,
    deadlines,
    departures,
    hang,
    hook_ends,
    hooks,
    leader,
    listener_orders,
    outcomes,
    recovery,
    reports,
    rollout,
    scaling,
    service,
    shifting,
    watching,
)
from stillup.core.commands import Command
from stillup.core.events import (
    AbortAsked,
    BecameReady,
    BeganServing,
    ChannelLost,
    CordonAsked,
    Event,
    Exited,
    HeartbeatsDue,
    HelloSaid,
    HookEnded,
    HookLeft,
    HookStarted,
    LeaderLockKept,
    ParkingLost,
    ProbeAnswered,
    PromoteAsked,
    ReexecAsked,
    RefusalNoted,
    ReloadAsked,
    Reported,
    RollbackAsked,
    ScaleAsked,
    Spawned,
    SpawnFailed,
    StopAsked,
    TimerFired,
    TookOver,
    WorkerBootFailed,
    WorkerResumed,
)
from stillup.core.model import Fleet
from stillup.core.rollback import rollback
from stillup.core.transition import Transition


class Decision(msgspec.Struct, frozen=True):
    """What the fleet becomes, and what is to be done for it, in order."""

    fleet: Fleet
    commands: tuple[Command, ...] = ()


def step(fleet: Fleet, event: Event, now: float) -> Decision:
    """Decide.

    Args:
        fleet: all that is known.
        event: what happened.
        now: seconds on the monotonic clock.

    Raises:
        Refused: the event has no place in this fleet, which stays as it is.
    """
    transition = Transition(fleet, now)
    _decide(transition, event)
    rollout.settle_standby(transition)
    if not isinstance(event, ReexecAsked):  # what is started now, the next program would not know
        shifting.go_on(transition, fleet)
        boot_queue.settle(transition)
    scaling.settle(transition)
    leader.settle(transition)
    rollout.settle_standby(transition)  # whose last worker was killed just now, since it would not let go
    if not isinstance(event, TookOver | HookLeft):  # what was bound for the reload that follows is wanted by nobody yet
        listener_orders.settle(transition)
    adoption.settle(transition)
    return Decision(transition.fleet, tuple(transition.commands))


def _decide(transition: Transition, event: Event) -> None:
    match event:
        # Somebody asks
        case ReloadAsked():
            rollout.reload_asked(transition, event)
        case RefusalNoted():
            outcomes.note_refusal(transition, event)
        case RollbackAsked(release, found, why, to):
            rolls_back = rollback(transition.fleet, release, found, to)
            rollout.reload(transition, release, why, rolls_back=rolls_back)
        case AbortAsked():
            rollout.call_off(transition)
        case PromoteAsked(why):
            watching.promote(transition, why)
        case ScaleAsked(size, relative):
            scaling.scale(transition, transition.fleet.size + size if relative else size)
        case StopAsked():
            service.stop(transition, event)
        case CordonAsked(why, on):
            service.cordon(transition, why, on=on)
        case ReexecAsked():
            service.replace_program(transition)
        # A worker comes into service, lives, and ends
        case Spawned():
            arrivals.spawned(transition, event)
        case HelloSaid():
            arrivals.said_hello(transition, event)
        case WorkerBootFailed():
            arrivals.boot_failed(transition, event)
        case BecameReady():
            arrivals.became_ready(transition, event)
        case ProbeAnswered():
            arrivals.probe_answered(transition, event)
        case BeganServing():
            arrivals.began_serving(transition, event)
        case Reported():
            reports.reported(transition, event)
        case HeartbeatsDue(at, late):
            hang.judge(transition, at, late=late)
        case LeaderLockKept():
            leader.keeps_lock(transition, event)
        case ChannelLost():
            departures.channel_lost(transition, event)
        case SpawnFailed():
            departures.spawn_failed(transition, event)
        case Exited():
            departures.exited(transition, event)
        case TimerFired(timer):
            deadlines.passed(transition, timer)
        # A program is run around a rollout
        case HookStarted() | HookEnded() | HookLeft():
            _decide_on_hook(transition, event)
        # Another supervisor has ended, or the surroundings are not what they were thought to be
        case TookOver() | WorkerResumed() | ParkingLost():
            _decide_on_surroundings(transition, event)
        case _:
            assert_never(event)


def _decide_on_hook(transition: Transition, event: HookStarted | HookEnded | HookLeft) -> None:
    match event:
        case HookStarted():
            hooks.started(transition, event)
        case HookEnded():
            hook_ends.ended(transition, event)
        case _:
            hook_ends.left(transition, event)


def _decide_on_surroundings(transition: Transition, event: TookOver | WorkerResumed | ParkingLost) -> None:
    match event:
        case TookOver():
            recovery.take_over(transition, event)
        case WorkerResumed():
            recovery.resume(transition, event)
        case _:
            service.lose_parking(transition)
