"""The kinds of events that the service and its workers go through: each one's shape, and how it reads.

A kind keeps its name and its fields; later versions add fields, and kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Final

import msgspec

from supervisor.core.recovery import LOST
from supervisor.core.rollout import CALLED_OFF

NOBODYS_FAULT: Final = frozenset({"superseded", "stopping", CALLED_OFF, LOST})
"""Why a rollout may be aborted without anything wrong with its release."""


class Envelope(msgspec.Struct, frozen=True, tag_field="kind"):
    """What every event has, beside its ``kind``."""

    level: ClassVar[str] = "INFO"
    """How loud it is in the log."""
    line: ClassVar[str] = ""
    """How it reads: ``text`` with its fields left open."""

    seq: int
    """1, 2, 3 ..."""
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    """When, by the wall clock: RFC 3339, UTC, with microseconds."""
    monotonic: float
    """When, by the host's monotonic clock, in seconds: for the time between two events of one boot of the host."""
    text: str
    """The event as a line for people."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        return cls.line.format(**data)

    def loudness(self) -> str:
        return self.level


# The service and its supervisor


class ServiceTakenOver(Envelope, frozen=True, tag="service.taken-over"):
    """A supervisor goes on where another one has ended, or where its own program was replaced."""

    level = "WARNING"
    line = "taken over: {workers} workers live on, {died} have died meanwhile"

    generation: int | None
    """The one that serves, if one does."""
    workers: int
    died: int


class SupervisorReexec(Envelope, frozen=True, tag="supervisor.reexec"):
    """The supervisor replaces its own program; ``service.taken-over`` says that the new one goes on."""

    line = "replacing our own program; the workers serve on"


class ServiceScaled(Envelope, frozen=True, tag="service.scaled"):
    """Another number of workers is wanted."""

    line = "{workers} workers wanted"

    generation: int
    """The one that serves."""
    workers: int


class ServiceStopping(Envelope, frozen=True, tag="service.stopping"):
    """The service was told to stop, or could not start."""

    line = "stopping ({why})"

    why: str
    """Who asked, or what is wrong."""


class ServiceHurried(Envelope, frozen=True, tag="service.hurried"):
    """A second order to stop: what still drains is ended."""

    level = "WARNING"
    line = "asked again to stop ({why}): not waiting any longer"

    why: str


class ServiceStopped(Envelope, frozen=True, tag="service.stopped"):
    """No worker is left, and the supervisor ends; its history ends with it."""

    line = "stopped"

    code: int
    """The supervisor's exit code."""


# Rollouts


class RolloutBegun(Envelope, frozen=True, tag="rollout.begun"):
    """A new generation boots."""

    line = "gen {generation} boots from {release} ({why})"

    rollout: int
    generation: int
    why: str
    """Who asked for it, or what did."""
    release: str


class RolloutWaiting(Envelope, frozen=True, tag="rollout.waiting"):
    """A reload was accepted while as many generations drain as may."""

    line = "reload {rollout} waits until an older generation has left"

    rollout: int


class RolloutCutOver(Envelope, frozen=True, tag="rollout.cut-over"):
    """The new generation serves, and the one before begins to drain: the rollout has succeeded."""

    line = "gen {generation} serves"

    rollout: int
    generation: int
    previous: int | None
    """The generation that drains now; null if none served."""


class RolloutDone(Envelope, frozen=True, tag="rollout.done"):
    """The generation that was replaced has left."""

    level = "DEBUG"
    line = "reload {rollout} is done"

    rollout: int
    generation: int


class RolloutAborted(Envelope, frozen=True, tag="rollout.aborted"):
    """A rollout ended before its cut-over; what served serves on."""

    level = "ERROR"
    line = "gen {generation} rejected ({reason}): {why}"

    rollout: int
    generation: int | None
    """Null if it had not begun."""
    reason: str
    """``superseded``, ``called-off``, ``stopping``, ``supervisor-lost``, or the stage in which a worker failed."""
    why: str
    """Which worker failed, and how, without what its app said of it; empty if none did."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        off = data["reason"] in NOBODYS_FAULT
        return ("reload {rollout} is off: {reason}" if off else cls.line).format(**data)

    def loudness(self) -> str:
        return "INFO" if self.reason in NOBODYS_FAULT else self.level


class RolloutRolledBack(Envelope, frozen=True, tag="rollout.rolled-back"):
    """A generation crashed soon after its cut-over; another rollout brings back the release before it."""

    level = "ERROR"
    line = "gen {generation} crashes ({deaths} deaths within {seconds:.0f} s): back to {release}"

    rollout: int
    """The one that is taken back."""
    generation: int
    release: str
    """What comes back."""
    deaths: int
    seconds: float
    """Since the cut-over."""


class RollbackRefused(Envelope, frozen=True, tag="rollback.refused"):
    """A generation crashes, and there is nothing to go back to."""

    level = "ERROR"
    line = "gen {generation} crashes, and there is nothing to go back to: {release} was changed in place ({reason})"

    rollout: int
    generation: int
    release: str
    reason: str


class GenerationGone(Envelope, frozen=True, tag="generation.gone"):
    """The last worker of a generation has left."""

    line = "gen {generation} has left: {moved} connections moved on, {closed} closed"

    generation: int
    moved: int
    closed: int
    """Those without a request in progress that it had to end."""


class ReleaseChanged(Envelope, frozen=True, tag="release.changed"):
    """A worker was started from a release that is not what it was when it was resolved; told once a generation."""

    level = "WARNING"
    line = "{release} was changed in place: worker {worker} may run something else than what it stood for"

    generation: int
    worker: str
    release: str


# Workers


class WorkerServing(Envelope, frozen=True, tag="worker.serving"):
    """A worker was started in a slot of the generation that serves, and serves now."""

    line = "worker {worker} (pid {pid}) serves"

    worker: str
    pid: int | None


class WorkerDied(Envelope, frozen=True, tag="worker.died"):
    """A worker of the generation that serves has ended without being told to."""

    level = "ERROR"
    line = "worker {why}; its slot is filled again"

    worker: str
    pid: int | None
    why: str
    """Its name, its pid and how it ended."""


class WorkerWaits(Envelope, frozen=True, tag="worker.waits"):
    """A slot whose workers keep dying young is not filled at once."""

    level = "WARNING"
    line = "worker {worker} died young {deaths} times in a row; next start in {seconds:.1f} s"

    worker: str
    deaths: int
    seconds: float
    """Until the next start."""


class WorkerWorn(Envelope, frozen=True, tag="worker.worn"):
    """A worker has grown or aged past its limit; it serves until another one serves in its slot."""

    line = "worker {worker} is worn and will be replaced: {why}"

    worker: str
    why: str


class WorkerWearsFast(Envelope, frozen=True, tag="worker.wears-fast"):
    """A slot whose workers keep wearing out young waits for its next worker."""

    level = "WARNING"
    line = "worker {worker} wore out young {times} times in a row ({why}); it serves on, next start in {seconds:.1f} s"

    worker: str
    why: str
    times: int
    seconds: float
    """Until the next start."""


class WorkerHung(Envelope, frozen=True, tag="worker.hung"):
    """Nothing was heard of a worker for too long; it is killed when another one serves in its slot."""

    level = "ERROR"
    line = "worker {worker} (pid {pid}) hangs: no word for {seconds:.0f} s; replaced, then killed, with {connections}"

    worker: str
    pid: int | None
    seconds: float
    connections: dict[str, int]
    """By class, as it last reported them."""


class WorkerRecovered(Envelope, frozen=True, tag="worker.recovered"):
    """A worker that hung is heard again."""

    level = "WARNING"
    line = "worker {worker} (pid {pid}) is back after {seconds:.0f} s without a word; it is replaced all the same"

    worker: str
    pid: int | None
    seconds: float


class WorkerLost(Envelope, frozen=True, tag="worker.lost"):
    """A worker died in the middle of its drain."""

    level = "ERROR"
    line = "worker {why} while it drained"

    worker: str
    why: str
    """Its name, its pid and how it ended."""


class WorkerOverdue(Envelope, frozen=True, tag="worker.overdue"):
    """A worker did not keep its own deadline for the drain; it is sent SIGTERM."""

    level = "WARNING"
    line = "worker {worker} did not end its drain in time: {connections}"

    worker: str
    connections: dict[str, int]
    """By class, as it last reported them."""


class WorkerKilled(Envelope, frozen=True, tag="worker.killed"):
    """A worker was sent SIGKILL."""

    level = "WARNING"
    line = "worker {worker} does not leave by itself: killed, with {connections}"

    worker: str
    connections: dict[str, int]
    """By class, as it last reported them."""


class ConnectionsLost(Envelope, frozen=True, tag="connections.lost"):
    """Connections did not arrive whole at the worker that was to go on with them."""

    level = "ERROR"
    line = "worker {worker} lost {connections} connections on their way from another worker: out of descriptors?"

    worker: str
    connections: int


# Requests


class ScalingDone(Envelope, frozen=True, tag="scaling.done"):
    """As many workers serve as were asked for."""

    line = "{workers} of {workers} workers serve"

    scaling: int
    workers: int


class ScalingAborted(Envelope, frozen=True, tag="scaling.aborted"):
    """A request for a number of workers is not waited for any longer; as many are still wanted."""

    line = "scaling to {workers} workers is not waited for any longer: {reason}"

    scaling: int
    workers: int
    reason: str
    """``superseded``, ``stopping`` or the stage in which a worker failed."""
