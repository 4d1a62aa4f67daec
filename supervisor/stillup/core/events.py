"""What can happen to a fleet: requests, word from workers, the ends of processes, and timers."""

from __future__ import annotations

import msgspec

from stillup.core.model import Release
from stillup.core.policy import Policy, Timer
from stillup.core.setting_changes import SettingChange
from stillup.core.states import Birth
from stillup.core.strategy import Strategy
from stillup.core.worker_figures import WorkerFigures


class Configured(msgspec.Struct, frozen=True):
    """What the configuration says now, beside the release, where it was read again for a reload."""

    policy: Policy
    size: int | None = None
    """Workers wanted, if that was changed."""
    changes: tuple[SettingChange, ...] = ()
    """By key."""


class ReloadAsked(msgspec.Struct, frozen=True):
    """Somebody asks for a new generation of this release; with ``force`` also if it was rolled back before."""

    release: Release
    why: str
    force: bool = False
    configured: Configured | None = None
    hurry: bool = False
    """Whether older generations that drain are to end what is endless at once."""
    strategy: Strategy | None = None
    """How it is to come; None: as the policy says."""
    if_changed: bool = False
    """Whether nothing is to be done if it would bring what serves already."""


class RefusalNoted(msgspec.Struct, frozen=True):
    """A reload was refused before a rollout was made of it: there is no release, or one that is not to run again."""

    why: str
    """Who asked for it, or what did."""
    code: str
    message: str


class RollbackAsked(msgspec.Struct, frozen=True):
    """Somebody asks for the release before the one that serves; ``found``: the fingerprint that it has now."""

    release: Release
    found: str
    why: str
    to: int | None = None
    """The generation that ran it, where somebody has said which."""


class AbortAsked(msgspec.Struct, frozen=True):
    """Somebody calls the rollout off that is before its cut-over."""

    why: str


class PromoteAsked(msgspec.Struct, frozen=True):
    """Somebody passes the canary that is watched."""

    why: str


class StopAsked(msgspec.Struct, frozen=True):
    """Somebody asks the service to end; asked again by somebody who insists, it hurries."""

    why: str
    insist: bool = False
    at_once: bool = False
    """Whether it is not to be announced first, be there a delay for that or not."""
    now: bool = False
    """Whether it is hurried from its beginning on; it is not announced then, either."""


class CordonAsked(msgspec.Struct, frozen=True):
    """Somebody asks that no new clients be sent, or with ``on`` false that they be sent again; requests are served."""

    why: str
    on: bool = True


class ScaleAsked(msgspec.Struct, frozen=True):
    """Somebody asks for that many workers, or for so many more or fewer."""

    size: int
    relative: bool = False


class Spawned(msgspec.Struct, frozen=True):
    """The process of a worker exists."""

    serial: int
    pid: int
    started: int = 0
    """Clock ticks from the host's start to the process's (proc_pid_stat(5)): with the pid, its identity."""
    birth: Birth | None = None


class SpawnFailed(msgspec.Struct, frozen=True):
    """The process of a worker could not be started: its one exit."""

    serial: int
    message: str
    output: str = ""
    """The last of what was written by the process that it was to be forked from."""


class HelloSaid(msgspec.Struct, frozen=True):
    """A worker was authenticated on the hand-off channel."""

    serial: int
    takes_sessions: bool = False
    """Whether it knows sessions that go on (``core.crossing``)."""


class WorkerBootFailed(msgspec.Struct, frozen=True):
    """A worker says why it cannot serve; its exit follows."""

    serial: int
    stage: str
    message: str


class BecameReady(msgspec.Struct, frozen=True):
    """A worker has booted and waits to be told to accept; ``probe`` is what its health probe saw."""

    serial: int
    probe: str = ""


class ProbeAnswered(msgspec.Struct, frozen=True):
    """What a worker's health probe was answered is not healthy, and it is asked again; 0: there is no answer yet."""

    serial: int
    status: int


class BeganServing(msgspec.Struct, frozen=True):
    """A worker accepts."""

    serial: int


class Reported(msgspec.Struct, frozen=True):
    """A worker's figures, at most about once a second; ``recycle`` says why it asks to be replaced, if it does."""

    serial: int
    figures: WorkerFigures = msgspec.field(default_factory=WorkerFigures)
    recycle: str = ""


class HeartbeatsDue(msgspec.Struct, frozen=True):
    """A look at who is silent (``core.hang``): all that had come from workers by ``at`` has been submitted before this.

    ``late``: a worker's silence means nothing, since the supervisor itself has slept, or the workers cannot write.
    """

    at: float
    late: bool = False


class LeaderLockKept(msgspec.Struct, frozen=True):
    """A process holds the leader's lock while another worker is to be told to lead: one of our workers, by its pid."""

    pid: int


class ChannelLost(msgspec.Struct, frozen=True):
    """A worker broke the protocol on its channel and was cut off; a channel that merely ends says nothing."""

    serial: int
    message: str


class Exited(msgspec.Struct, frozen=True):
    """A worker's process has ended; ``how`` is such as ``exited 1`` or ``killed by SIGSEGV``, or HOW_UNKNOWN."""

    serial: int
    how: str
    output: str = ""


class HookStarted(msgspec.Struct, frozen=True):
    """The process of a hook exists, and waits to be let run."""

    id: int
    pid: int
    started: int
    """As ``Spawned`` has it."""


class HookEnded(msgspec.Struct, frozen=True):
    """The process of a hook has ended, and what was left in its group; or it could not be started."""

    id: int
    how: str
    """As ``Exited`` has it, or why it could not be started."""
    output: str = ""
    """The end of what it wrote."""


class HookLeft(msgspec.Struct, frozen=True):
    """Of a supervisor that begins with the fleet of another: whether the hook that is under way lives."""

    lives: bool


class TimerFired(msgspec.Struct, frozen=True):
    """A timer that was set has come."""

    timer: Timer


class TookOver(msgspec.Struct, frozen=True):
    """The first event of a supervisor that begins with the fleet of another."""

    alive: frozenset[int]
    """The serials of the workers whose processes live."""
    size: int | None = None
    """Workers wanted of each new generation from now on; None: as many as on record."""


class ParkingLost(msgspec.Struct, frozen=True):
    """The service manager does not keep the adoption queue: what is idle at a stop cannot be parked there."""


class WorkerResumed(msgspec.Struct, frozen=True):
    """A worker that had lost its supervisor has come back; ``draining`` is what it does now."""

    serial: int
    draining: bool
    leads: bool = False
    """Whether it was told to lead, by its own word, and has not let go."""
    paused: bool = False
    """Whether it is paused; else, if it does not drain, it serves."""
    takes_sessions: bool = False
    """Whether it knows sessions that go on."""


class ReexecAsked(msgspec.Struct, frozen=True):
    """Somebody asks that the supervisor's program be replaced."""


Event = (
    ReloadAsked
    | RefusalNoted
    | RollbackAsked
    | AbortAsked
    | PromoteAsked
    | StopAsked
    | CordonAsked
    | ScaleAsked
    | Spawned
    | SpawnFailed
    | HelloSaid
    | WorkerBootFailed
    | BecameReady
    | ProbeAnswered
    | BeganServing
    | Reported
    | HeartbeatsDue
    | LeaderLockKept
    | ChannelLost
    | Exited
    | HookStarted
    | HookEnded
    | HookLeft
    | TimerFired
    | TookOver
    | ParkingLost
    | WorkerResumed
    | ReexecAsked
)
