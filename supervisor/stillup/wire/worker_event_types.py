"""The kinds of events that workers go through, and their connections: each one's shape, and how it reads.

As in ``event_types``: a kind keeps its name and its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from stillup.core.amounts import amount
from stillup.wire.event_envelope import Envelope, filled


def counted(connections: object) -> str:
    """Numbers by class, as people read them."""
    return ", ".join(f"{n} {kind}" for kind, n in connections.items()) if isinstance(connections, Mapping) else ""


class WorkerUnhealthy(Envelope, frozen=True, tag="worker.unhealthy"):
    """A worker that boots is not healthy yet, by what its health probe was answered; it is asked again."""

    level = "WARNING"
    line = "worker {worker} (pid {pid}) is not healthy yet: {path} answered {status}, {seconds:.0f} s after its start"

    worker: str
    pid: int | None
    path: str
    """The probe's, without its query."""
    status: int | None
    """Null: there is no answer yet."""
    seconds: float
    """Since its start."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        silent = cls.line.replace("answered {status}", "has not answered") if data["status"] is None else cls.line
        return filled(silent, data)


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
    line = "worker {worker} died young {deaths:time} in a row; next start in {seconds:.1f} s"

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
    line = "worker {worker} wore out young {times:time} in a row ({why}); it serves on, next start in {seconds:.1f} s"

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


class WorkerCutOff(Envelope, frozen=True, tag="worker.cut-off"):
    """A worker broke the protocol on its channel, or said too much there; it is replaced."""

    level = "ERROR"
    line = "worker {worker} (pid {pid}) was cut off: it {why}"

    worker: str
    pid: int | None
    why: str


class WorkerOverdue(Envelope, frozen=True, tag="worker.overdue"):
    """A worker did not keep its own deadline for the drain; it is sent SIGTERM."""

    level = "WARNING"
    line = "worker {worker} did not end its drain in time: {why}"

    worker: str
    connections: dict[str, int]
    """By class, as it last reported them."""
    held_up: bool = False
    """Whether threads of its app's keep its process, as it says; their names are in the log."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        holds = [counted(data["connections"])] if data["connections"] else []
        holds += ["threads of its app"] if data["held_up"] else []
        return filled(cls.line, {"worker": data["worker"], "why": " and ".join(holds) or "it does not say why"})


class WorkerHeldUp(Envelope, frozen=True, tag="worker.held-up"):
    """A worker has nothing more to do, and cannot end: threads of its app's go on that are no daemons.

    Which they are, and where, is in the log, and in the worker's figures for operators.
    """

    level = "WARNING"
    line = "worker {worker} has finished, and waits for threads of its app"

    worker: str


class WorkerKilled(Envelope, frozen=True, tag="worker.killed"):
    """A worker was sent SIGKILL."""

    level = "WARNING"
    line = "worker {worker} does not leave by itself: killed, with {connections}"

    worker: str
    connections: dict[str, int]
    """By class, as it last reported them."""


class LeaderTold(Envelope, frozen=True, tag="leader.told"):
    """A worker was told to lead: the first of all, or in the place of one that was told to leave, or has ended.

    Not of one that follows who has given it up: an app may do that every second.
    """

    line = "worker {worker} (pid {pid}) leads"

    worker: str
    pid: int | None
    term: int
    """Counted from 1; those that are not told of count, too."""


class LeaderKilled(Envelope, frozen=True, tag="leader.killed"):
    """A worker was sent SIGKILL so that another can lead."""

    level = "ERROR"
    line = "worker {worker} (pid {pid}) has not let go of leading after {seconds:g} s: killed, so that another can lead"

    worker: str
    pid: int | None
    seconds: float | None
    """Since it was told to leave; null: it was not to lead, or had let go by its own word, and held the lock."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        if data["seconds"] is None:
            return filled("worker {worker} (pid {pid}) holds the leader's lock, and is not to lead: killed", data)
        return filled(cls.line, data)


class ConnectionsCut(Envelope, frozen=True, tag="connections.cut"):
    """A worker's drain has ended requests before they were done, since their time was over."""

    level = "WARNING"
    line = "worker {worker} cut {what}: their time to drain was over"

    worker: str
    connections: dict[str, int]
    """By class: since the last of these events of that worker."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        return filled(cls.line, {"worker": data["worker"], "what": counted(data["connections"])})


class SessionsRefused(Envelope, frozen=True, tag="sessions.refused"):
    """Sessions that their app had handed over did not go on in the worker that took them: clients connect again."""

    level = "WARNING"
    line = "worker {worker} did not go on with {what}: their clients are to connect again"

    worker: str
    sessions: dict[str, int]
    """By reason: since the last of these events of that worker."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        refused = cast("Mapping[str, int]", data["sessions"])
        what = ", ".join(f"{amount(number, 'session')} ({reason})" for reason, number in refused.items())
        return filled(cls.line, {"worker": data["worker"], "what": what})


class ConnectionsLost(Envelope, frozen=True, tag="connections.lost"):
    """Connections did not arrive whole at the worker that was to go on with them."""

    level = "ERROR"
    line = "worker {worker} lost {connections:connection} on the way from another worker: out of descriptors?"

    worker: str
    connections: int
