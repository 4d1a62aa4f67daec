"""The events of ``GET /v1/events``: what has happened to the service.

1. Events are numbered 1, 2, 3 ... without a gap, over every restart of the supervisor until the service is stopped.
2. No event has a worker's output, or its app's words of a failure or of its threads: viewers may read events, and those
   texts are for operators (``RolloutView``, ``WorkerView``) and for the log (``log_line``).
3. Nothing in an event is longer than LONGEST, no matter where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, get_args

import msgspec

from stillup.wire.canary_event_types import CanaryHeld, CanaryPassed, CanaryPromoted, CanaryWatching
from stillup.wire.event_envelope import Envelope, filled
from stillup.wire.event_types import (
    GenerationGone,
    GenerationStandby,
    PreloadUnfit,
    ReleaseChanged,
    ReloadRefused,
    RollbackRefused,
    RolloutAborted,
    RolloutBegun,
    RolloutCutOver,
    RolloutDone,
    RolloutGaveUp,
    RolloutRolledBack,
    RolloutStep,
    RolloutWaiting,
    RolloutWentBack,
    ScalingAborted,
    ScalingDone,
)
from stillup.wire.hook_event_types import HookBegun, HookDone, HookFailed, HookWaiting
from stillup.wire.plain_text import escaped
from stillup.wire.service_event_types import (
    ConfigurationRead,
    ListenerAdded,
    ListenerClosed,
    ServiceCordoned,
    ServiceHurried,
    ServiceScaled,
    ServiceStopDelayed,
    ServiceStopped,
    ServiceStopping,
    ServiceTakenOver,
    ServiceUncordoned,
    SupervisorReexec,
)
from stillup.wire.worker_event_types import (
    ConnectionsCut,
    ConnectionsLost,
    LeaderKilled,
    LeaderTold,
    SessionsRefused,
    WorkerCutOff,
    WorkerDied,
    WorkerHeldUp,
    WorkerHung,
    WorkerKilled,
    WorkerLost,
    WorkerOverdue,
    WorkerRecovered,
    WorkerServing,
    WorkerUnhealthy,
    WorkerWaits,
    WorkerWearsFast,
    WorkerWorn,
)

LONGEST: Final = 1_000
"""Characters of a text in an event; the rest is cut. A worker or a caller may have chosen it."""
ACCEPTED: Final = "accepted"
DENIED: Final = "denied"
"""Outcomes of a request; any other is why it was refused."""
_PRIVATE: Final = frozenset({"output", "message"})
"""What announcements of the core say and no event does."""


class PrincipalView(msgspec.Struct, frozen=True):
    """The process that sent a request, by the kernel's word. No command line and no environment: those hold secrets."""

    uid: int
    gid: int
    pid: int
    """0 for a process of another pid namespace."""
    login_uid: int | None
    """The user who logged in, kept over su and sudo (``/proc/PID/loginuid``, proc(5)); null if none did, or unknown."""
    exe: str
    """The program's file (``/proc/PID/exe``); empty if that is not to be known."""


class RequestAudited(Envelope, frozen=True, tag="request.audited"):
    """A change was asked for: one event a request, as soon as it is accepted or turned down."""

    line = (
        "{method} {path}: {outcome} ({status}), asked by uid {principal[uid]} gid {principal[gid]} as {role!r}, "
        "pid {principal[pid]}{login}, exe {principal[exe]!r}"
    )

    method: str
    path: str
    outcome: str
    """``accepted``, ``denied``, or why it was refused: the last word of its problem's type, such as ``stopping``."""
    status: int
    """Of the answer; of one that is waited for, what it would have been without waiting."""
    role: str
    """The caller's, such as ``operator``; ``none`` without one."""
    rollout: int | None
    """The rollout that came of it."""
    scaling: int | None
    """The request for another number of workers that came of it."""
    principal: PrincipalView

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        who = data["principal"]
        uid = who.get("login_uid") if isinstance(who, Mapping) else None
        return filled(cls.line, {**data, "login": f", login uid {uid}" if uid is not None else ""})

    def loudness(self) -> str:
        return "WARNING" if self.outcome == DENIED else self.level


class RequestsDenied(Envelope, frozen=True, tag="requests.denied"):
    """So many more requests for a change were denied than stand in the feed one by one: it belongs to other callers."""

    level = "WARNING"
    line = (
        "{count:more request was|more requests were} denied within {seconds:.0f} s, most of them to uid {uid} "
        "(of {uids})"
    )

    count: int
    seconds: float
    uid: int
    """Of the user who asked most of them."""
    uids: int
    """How many users asked."""


# The feed itself


class FeedGap(Envelope, frozen=True, tag="feed.gap"):
    """Said to one reader: what it has missed. Its ``seq`` is the last one that is missing, so ``since`` goes on there.

    The history is bounded; and one that was ended by a stop is followed by another, which begins with 1 again.
    """

    level = "WARNING"
    line = "events were missed: after {since} the next that is known is {next}"

    since: int
    """The last event that the reader has, by its own word or because it was sent that."""
    next: int
    """The first event that can be had."""


Event = (
    ServiceTakenOver
    | SupervisorReexec
    | ServiceScaled
    | ConfigurationRead
    | ListenerAdded
    | ListenerClosed
    | ServiceCordoned
    | ServiceUncordoned
    | ServiceStopDelayed
    | ServiceStopping
    | ServiceHurried
    | ServiceStopped
    | RolloutBegun
    | RolloutWaiting
    | RolloutStep
    | CanaryWatching
    | CanaryHeld
    | CanaryPassed
    | CanaryPromoted
    | RolloutWentBack
    | RolloutGaveUp
    | RolloutCutOver
    | RolloutDone
    | RolloutAborted
    | RolloutRolledBack
    | RollbackRefused
    | GenerationStandby
    | GenerationGone
    | ReleaseChanged
    | PreloadUnfit
    | ReloadRefused
    | HookWaiting
    | HookBegun
    | HookDone
    | HookFailed
    | WorkerUnhealthy
    | WorkerServing
    | WorkerDied
    | WorkerWaits
    | WorkerWorn
    | WorkerWearsFast
    | WorkerHung
    | WorkerRecovered
    | WorkerLost
    | WorkerCutOff
    | WorkerHeldUp
    | LeaderTold
    | LeaderKilled
    | WorkerOverdue
    | WorkerKilled
    | ConnectionsCut
    | ConnectionsLost
    | SessionsRefused
    | ScalingDone
    | ScalingAborted
    | RequestAudited
    | RequestsDenied
    | FeedGap
)
KINDS: Final[Mapping[str, type[Envelope]]] = {shape.__struct_config__.tag: shape for shape in get_args(Event)}
"""Every kind of event, and its shape."""


def make(kind: str, data: Mapping[str, object], *, seq: int, at: datetime, monotonic: float) -> Envelope:
    """The event of that kind. What is private in an announcement of the core is left out of it.

    Raises:
        KeyError: there is no such kind.
        msgspec.ValidationError: its data are others than these.
    """
    shape = KINDS[kind]
    told = {name: _plain(value) for name, value in data.items() if name not in _PRIVATE}
    own = set(shape.__struct_fields__) - set(Envelope.__struct_fields__)
    if told.keys() != own:
        raise msgspec.ValidationError(f"{kind} has {sorted(own)}, not {sorted(told)}")
    envelope = {"kind": kind, "seq": seq, "at": at, "monotonic": monotonic, "text": _line(shape.reads(told))}
    return msgspec.convert({**envelope, **told}, shape)


def log_line(event: Envelope, data: Mapping[str, object]) -> str:
    """How an event made of ``data`` reads in the log: with what the app has said of its failure, or its threads."""
    said = str(data.get("message") or "")
    return f"{event.text}: {_line(said)}" if said else event.text


def _line(text: str) -> str:
    """A text as one line: a caller's path, or an app's words, must not look like lines of the log."""
    return _cut(escaped(text))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _plain(value: object) -> object:
    """A value as JSON can have it: not too long, and without the lone surrogates of a file's name."""
    match value:
        case str():
            return _cut(value.encode("utf-8", "backslashreplace").decode())
        case Mapping():
            return {_plain(name): _plain(inner) for name, inner in value.items()}
        case _:
            return value
