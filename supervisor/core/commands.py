"""What the supervisor is to do: the only output of ``core.rollout.step``, performed in order by ``daemon.effects``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.core.events import Timer
from supervisor.core.model import Release


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker's process."""

    serial: int
    generation: int
    slot: int
    release: Release
    boot_timeout: float
    drain_timeout: float
    again: bool = False
    """Whether its release was resolved for an earlier worker: what is on the disk may be another one by now."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Tell a READY worker to accept."""

    serial: int


@dataclass(frozen=True, slots=True)
class BeginDrain:
    """Tell a worker to drain. ``final``: nobody takes over, and the listeners end.

    ``park``: nobody takes over now, but what is put into the queue is for the workers of a later supervisor.
    """

    serial: int
    timeout: float
    final: bool
    packet: int = 1
    """Connections that it may give away at a time."""
    park: bool = False


@dataclass(frozen=True, slots=True)
class Hurry:
    """Tell a draining worker to end its endless answers now."""

    serial: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send SIGTERM."""

    serial: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL."""

    serial: int


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Have a worker that hangs write where each of its threads is to its stderr, if it can."""

    serial: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Submit ``TimerFired(timer)`` at that time. A timer that comes too late is refused, so none is ever cancelled."""

    timer: Timer
    at: float


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """End the custody of every listener."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Put a line on the feed. ``kind`` is stable; the data are for people and programs."""

    kind: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reexec:
    """Put the program that is installed now in the place of this one: the last command that this one carries out."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The last command of all: the supervisor's process may end."""

    code: int


Command = (
    Spawn
    | Accept
    | BeginDrain
    | Hurry
    | Terminate
    | Kill
    | DumpStacks
    | SetTimer
    | CloseListeners
    | Announce
    | Reexec
    | Exit
)
