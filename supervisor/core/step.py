"""The decisions: ``step(fleet, event, now)`` says what the fleet becomes and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.commands import Command
from supervisor.core.events import (
    AbortAsked,
    BeatsDue,
    BecameReady,
    BeganServing,
    BootFailed,
    Event,
    HelloSaid,
    ReexecAsked,
    ReloadAsked,
    Resumed,
    RollbackAsked,
    ScaleAsked,
    Spawned,
    SpawnFailed,
    StopAsked,
    TimerFired,
    TookOver,
)
from supervisor.core.model import Fleet
from supervisor.core.recovery import Recovery
from supervisor.core.rollback import rollback


@dataclass(frozen=True, slots=True)
class Decision:
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
    turn = _Turn(fleet, now)
    turn.take(event)
    return Decision(turn.fleet, tuple(turn.commands))


class _Turn(Recovery):
    """One call of ``step``."""

    def take(self, event: Event) -> None:
        match event:
            case ReloadAsked(release, why):
                self.reload(release, why)
            case RollbackAsked(release, found, why):
                self.reload(release, why, rolls_back=rollback(self.fleet, release, found))
            case AbortAsked():
                self.call_off()
            case StopAsked(why, insist):
                self.stop(why, insist=insist)
            case ScaleAsked(size, relative):
                self.scale(self.fleet.size + size if relative else size)
            case TimerFired(timer):
                self.timer(timer)
            case ReexecAsked():
                self.reexec()
            case BeatsDue(at, late):
                self.judge(at, late=late)
            case TookOver(alive):
                self.recover(alive)
            case Resumed(serial, draining):
                self.resume(self.put(self.heard(self.worker(serial))), draining=draining)
            case Spawned() | SpawnFailed() | HelloSaid() | BootFailed() | BecameReady() | BeganServing():
                self.boot(event)
            case _:
                self.life(event)
        self.settle_scaling()
