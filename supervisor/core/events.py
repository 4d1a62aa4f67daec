"""What can happen to a fleet: requests, word from workers, the ends of processes, and timers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from supervisor.core.crossing import Crossed
from supervisor.core.model import Release

HOW_UNKNOWN: Final = "ended; how is not known"
"""What is said of the end of a process that is not our child: only its parent is told more."""


class TimerKind(StrEnum):
    """What a timer is for."""

    BOOT = "boot"
    """A worker should be READY by now."""
    ADMIT = "admit"
    """A worker should be SERVING by now."""
    DRAIN = "drain"
    """A worker should have ended its drain by itself by now."""
    TERM = "term"
    """A worker should have left on SIGTERM by now."""
    RESPAWN = "respawn"
    """A vacant slot may be filled again."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A deadline. ``of`` is a worker's serial; for RESPAWN a generation's id, with the slot beside it."""

    kind: TimerKind
    of: int
    slot: int = 0


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """Somebody asks for a new generation of this release."""

    release: Release
    why: str


@dataclass(frozen=True, slots=True)
class RollbackAsked:
    """Somebody asks for the release before the one that serves; ``found``: the fingerprint that it has now."""

    release: Release
    found: str
    why: str


@dataclass(frozen=True, slots=True)
class AbortAsked:
    """Somebody calls the rollout off that is before its cut-over."""

    why: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody asks the service to end; asked again by somebody who insists, it hurries."""

    why: str
    insist: bool = False


@dataclass(frozen=True, slots=True)
class ScaleAsked:
    """Somebody asks for that many workers, or for so many more or fewer."""

    size: int
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process of a worker exists."""

    serial: int
    pid: int
    started: int = 0
    """Clock ticks from the host's start to the process's (proc_pid_stat(5)): with the pid, its identity."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The process of a worker could not be started: its one exit."""

    serial: int
    message: str


@dataclass(frozen=True, slots=True)
class HelloSaid:
    """A worker was authenticated on the hand-off channel."""

    serial: int
    comes_back: bool = True
    """Whether it comes back when it has lost its supervisor; those of the first protocol do not."""


@dataclass(frozen=True, slots=True)
class BootFailed:
    """A worker says why it cannot serve; its exit follows."""

    serial: int
    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class BecameReady:
    """A worker has booted and waits to be told to accept; ``probe`` is what its health probe saw."""

    serial: int
    probe: str = ""


@dataclass(frozen=True, slots=True)
class BeganServing:
    """A worker accepts."""

    serial: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker's figures, about once a second; ``worn`` says why it wants to be replaced."""

    serial: int
    connections: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    worn: str = ""
    oldest: Mapping[str, float] = field(default_factory=dict)
    """While it drains: for each class, the seconds that its oldest connection has been of it."""
    crossed: Crossed = field(default_factory=Crossed)
    """Of its whole life."""


@dataclass(frozen=True, slots=True)
class BeatsDue:
    """About once a second: every word that had come by ``at`` has been submitted before this.

    ``late``: nobody's silence means anything, since the supervisor itself has slept, or the workers cannot write.
    """

    at: float
    late: bool = False


@dataclass(frozen=True, slots=True)
class ChannelLost:
    """A worker broke the protocol on its channel and was cut off; a channel that merely ends says nothing."""

    serial: int
    message: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker's process has ended; ``how`` is such as ``exited 1`` or ``killed by SIGSEGV``, or HOW_UNKNOWN."""

    serial: int
    how: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that was set has come."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class TookOver:
    """First of all in a supervisor that found another's fleet; ``alive``: the serials of those whose processes live."""

    alive: frozenset[int]


@dataclass(frozen=True, slots=True)
class Resumed:
    """A worker that had lost its supervisor has come back; ``draining`` is what it does now."""

    serial: int
    draining: bool


@dataclass(frozen=True, slots=True)
class ReexecAsked:
    """Somebody asks that the supervisor's program be replaced."""


Event = (
    ReloadAsked
    | RollbackAsked
    | AbortAsked
    | StopAsked
    | ScaleAsked
    | Spawned
    | SpawnFailed
    | HelloSaid
    | BootFailed
    | BecameReady
    | BeganServing
    | Reported
    | BeatsDue
    | ChannelLost
    | Exited
    | TimerFired
    | TookOver
    | Resumed
    | ReexecAsked
)
