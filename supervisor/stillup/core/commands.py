"""What the supervisor is to do: ``core.step`` decides it, and ``daemon.loop.effects`` performs it in order."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stillup.core.drain import ClassTimeouts
from stillup.core.listener_key import ListenerKey
from stillup.core.model import Hook, Release
from stillup.core.policy import Timer


class Spawn(msgspec.Struct, frozen=True):
    """Start a worker's process."""

    serial: int
    generation: int
    slot: int
    release: Release
    boot_timeout: float
    drain_timeout: float
    again: bool = False
    """Whether its release was resolved for an earlier generation or worker: the disk may have another one by now."""
    listeners: tuple[ListenerKey, ...] = ()
    """What it is handed of those that are held; empty: all of them."""


class EndPreload(msgspec.Struct, frozen=True):
    """End the process that the workers of a generation are forked from, if there is one: none is, any more."""

    generation: int


class BeginAccept(msgspec.Struct, frozen=True):
    """Tell a worker to accept that is READY, or paused."""

    serial: int


class BeginDrain(msgspec.Struct, frozen=True):
    """Tell a worker to drain. ``final``: no other worker takes over, and the listeners end.

    ``park``: no other worker takes over now, but what is put into the queue is for those of a later supervisor.
    """

    serial: int
    timeouts: ClassTimeouts
    final: bool
    packet: int = 1
    """Connections that it may give away at a time."""
    park: bool = False
    sessions: bool = False
    """Whether who takes over knows sessions that go on."""


class BeginPause(msgspec.Struct, frozen=True):
    """Tell a worker to take nothing new, finish what it holds as in a drain, and stay; ``BeginAccept`` ends that."""

    serial: int
    timeouts: ClassTimeouts
    packet: int = 1
    """Connections that it may give away at a time."""
    sessions: bool = False
    """Whether who takes over knows sessions that go on."""


class TellCordon(msgspec.Struct, frozen=True):
    """Tell a worker whether its answers are to say ``Connection: close``: it accepts, and serves, as before."""

    serial: int
    on: bool


class TellAdoption(msgspec.Struct, frozen=True):
    """Tell a worker whether it is to read the adoption queue; who is told to accept does."""

    serial: int
    on: bool


class GiveShare(msgspec.Struct, frozen=True):
    """Tell a worker that serves to give that share of its idle connections away once; of 1."""

    serial: int
    share: float


class HurryDrain(msgspec.Struct, frozen=True):
    """Tell a draining worker to end endless answers now: those of event sources, or with ``every`` all of them."""

    serial: int
    every: bool = False


class Terminate(msgspec.Struct, frozen=True):
    """Send SIGTERM."""

    serial: int


class Kill(msgspec.Struct, frozen=True):
    """Send SIGKILL."""

    serial: int


class DumpStacks(msgspec.Struct, frozen=True):
    """Have a worker that hangs write where each of its threads is to its stderr, if it can."""

    serial: int


class BeginLeading(msgspec.Struct, frozen=True):
    """Tell a worker that it leads, and give it the lock; told again, it is to take the lock that is given now."""

    serial: int
    term: int


class SetTimer(msgspec.Struct, frozen=True):
    """Submit ``TimerFired(timer)`` at that time. A timer that comes too late is refused, so none is ever cancelled."""

    timer: Timer
    at: float


class RunHook(msgspec.Struct, frozen=True):
    """Start the process of a hook, which does nothing until it is let run."""

    hook: Hook
    release: Release
    """In whose directory and environment it is run."""


class LetHookRun(msgspec.Struct, frozen=True):
    """Let the process of a hook become its program: which process that is, is on record by now."""

    id: int


class EndHook(msgspec.Struct, frozen=True):
    """Send SIGTERM, or with ``kill`` SIGKILL, to the process group of a hook."""

    id: int
    kill: bool = False


class KeepListeners(msgspec.Struct, frozen=True):
    """Hold these listeners and no others: let go of the rest, and have these workers do the same."""

    listeners: tuple[ListenerKey, ...]
    workers: tuple[int, ...] = ()
    """By serial."""


class LeaveStore(msgspec.Struct, frozen=True):
    """Have the service manager keep no listener any more: who connects after the end is refused, and does not hang."""


class CloseListeners(msgspec.Struct, frozen=True):
    """End the custody of every listener."""


class Announce(msgspec.Struct, frozen=True):
    """Put a line on the feed. ``kind`` is stable; the data are for people and programs."""

    kind: str
    data: Mapping[str, object] = msgspec.field(default_factory=dict)


class Reexec(msgspec.Struct, frozen=True):
    """Put the program that is installed now in the place of this one: the last command that this one carries out."""


class Exit(msgspec.Struct, frozen=True):
    """The last command of all: the supervisor's process may end."""

    code: int


Command = (
    Spawn
    | EndPreload
    | BeginAccept
    | BeginDrain
    | BeginPause
    | BeginLeading
    | TellCordon
    | TellAdoption
    | GiveShare
    | HurryDrain
    | Terminate
    | Kill
    | DumpStacks
    | SetTimer
    | RunHook
    | LetHookRun
    | EndHook
    | KeepListeners
    | LeaveStore
    | CloseListeners
    | Announce
    | Reexec
    | Exit
)
