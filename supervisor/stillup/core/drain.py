"""When a draining worker ends a connection, by class.

A class of connection is a member of ``ConnectionClass``, its row in ``RULES``, and its place in the sets between them;
``core.crossing`` says which class a connection is of. What people are shown of it comes of its row, too.

1. A deadline is when the worker stops waiting for a connection to finish by itself. It counts from when the connection
   came to do what it does, so that a request whose head begins late in a drain has as long for it as any other.
2. Beside a new generation each class has a time of its own (``ClassTimeouts``), and none outlasts the longest of them.
   With nobody to come after, one time is for all of them.
3. With nobody to come after, what is idle is left alone for LAME_DUCK seconds first: every answer says that the
   connection ends with it, so a client that asks meanwhile is told, and only those that ask nothing are closed. So is
   what was accepted and has said nothing; if it came just now, longer. What the worker stood still meanwhile does not
   count: on a machine that pauses, clients on it have not had that time either.
4. At the end of the service the app's own shutdown is part of the time, so connections are cut before it is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec


class ConnectionClass(StrEnum):
    """What a connection is doing, as far as its end is concerned."""

    UNREAD = "unread"
    """Accepted; not one byte of a request was read."""
    IDLE = "idle"
    """Between requests."""
    HALF_READ = "half-read"
    """Part of a request head was read."""
    IN_PROGRESS = "in-progress"
    """A request is being answered whose answer has not begun; uploads are among these."""
    ANSWERED = "answered"
    """The answer is out, the request's body still arrives."""
    STREAM = "stream"
    """A streaming answer: its head is out, and its body goes on. ``text/event-stream``, tokens of a model, a file."""
    UPGRADING = "upgrading"
    """A WebSocket that the app has not accepted yet."""
    WEBSOCKET = "websocket"
    SESSION = "session"
    """A WebSocket whose app can hand it over."""
    OTHER = "other"
    """A protocol that we don't know."""


_C = ConnectionClass
CONNECTION: Final = ("connection", "connections")
"""What is waited for while its end is spread over a moment, and what is not known."""
ANSWERING: Final = frozenset({_C.IN_PROGRESS, _C.STREAM})
"""A request waits for its answer, or is being given it. When its time is over its task is cancelled."""
WITH_TASK: Final = ANSWERING | {_C.UPGRADING, _C.WEBSOCKET, _C.SESSION}
"""A task of the app's runs for it."""
WITHOUT_REQUEST: Final = frozenset({_C.UNREAD, _C.IDLE, _C.HALF_READ})
"""Ended by a drain, its client loses no answer; it is counted as closed."""

MAY_ASK: Final = frozenset({_C.UNREAD, _C.IDLE})
"""Its client's next word is a new request, which may be on its way."""

WITH_OWN_TIME: Final = frozenset({_C.STREAM, _C.WEBSOCKET})
"""May go on for longer than a request."""
ORDERLY: Final = WITHOUT_REQUEST | {_C.ANSWERED, _C.WEBSOCKET, _C.SESSION}
"""Ended by its own deadline, nothing is cut: its answer is out, or its client is told in the way of its protocol."""


class HurriedStreams(StrEnum):
    """Which endless answers a drain ends at once, whatever time they had."""

    NONE = "none"
    EVENT_SOURCES = "event-sources"
    """Answers of ``text/event-stream`` to a GET: a browser's EventSource connects again by itself."""
    ALL = "all"
    """All streaming answers, and WebSockets; those whose app can hand them over have a moment for it."""


class _Time(StrEnum):
    """The field of ``ClassTimeouts`` that a class has its time from."""

    REQUESTS = "requests"
    STREAMS = "streams"
    WEBSOCKETS = "websockets"


class Family(StrEnum):
    """Classes that are shown alike where there is no room for each."""

    REQUEST = "request"
    STREAM = "stream"
    WEBSOCKET = "websocket"
    IDLE = "idle"
    OTHER = "other"


class Rule(msgspec.Struct, frozen=True):
    """How long a class is waited for, and what it is called."""

    handover: _Time | float
    """Seconds with a new generation beside it, or whose time that is."""
    final: float | None
    """The same with nobody to come after, where that is less. None: the same."""
    spread: float = 0.0
    """Ends of this class are spread over that many seconds, so that their clients don't come back all at once."""
    spread_final: float = 0.0
    endless: bool = False
    """Whether it does not end by itself: a drain that is hurried ends it."""
    hurried: float = 0.0
    """Seconds that it has then."""
    family: Family = Family.OTHER
    names: tuple[str, str] = CONNECTION
    """What one, and what several are called that a stop waits for."""


_HEAD = 10.0
"""Seconds that a request head may still take."""
LAME_DUCK: Final = 0.25
"""Seconds of a final drain in which nothing that is idle is closed: a busy client asks again, and is told."""
_LEAVES = 0.15
"""Seconds over which idle connections are closed after that."""
STANDSTILL: Final = 0.1
"""Seconds that a worker's loop is late from which on it has stood still; less is work."""

SHUTDOWN_RESERVE: Final = 5.0
"""Seconds of a stop's time that are kept for the app's lifespan shutdown; a quarter of it, if that is less."""

_F = Family
_WEBSOCKET: Final = ("WebSocket", "WebSockets")
RULES: Mapping[ConnectionClass, Rule] = {
    # An answer to a last request carries "Connection: close", so these are waited for, not cut.
    _C.UNREAD: Rule(handover=_HEAD, final=2.0, family=_F.IDLE),
    _C.IDLE: Rule(handover=_Time.REQUESTS, final=LAME_DUCK, spread_final=_LEAVES, family=_F.IDLE),
    _C.HALF_READ: Rule(handover=_HEAD, final=_HEAD, family=_F.REQUEST),
    _C.IN_PROGRESS: Rule(handover=_Time.REQUESTS, final=None, family=_F.REQUEST, names=("request", "requests")),
    _C.STREAM: Rule(handover=_Time.STREAMS, final=None, endless=True, family=_F.STREAM, names=("stream", "streams")),
    _C.WEBSOCKET: Rule(
        handover=_Time.WEBSOCKETS,
        final=0.0,
        spread=2.0,
        spread_final=1.0,
        endless=True,
        family=_F.WEBSOCKET,
        names=_WEBSOCKET,
    ),
    # Its app hands it over when it next receives; with nobody to take it, it is a WebSocket like any other.
    _C.SESSION: Rule(
        handover=_Time.REQUESTS,
        final=0.0,
        spread_final=1.0,
        endless=True,
        hurried=5.0,
        family=_F.WEBSOCKET,
        names=_WEBSOCKET,
    ),
    _C.UPGRADING: Rule(
        handover=_Time.REQUESTS,
        final=None,
        family=_F.WEBSOCKET,
        names=("handshake of a WebSocket", "handshakes of WebSockets"),
    ),
    _C.ANSWERED: Rule(handover=_Time.REQUESTS, final=0.0, family=_F.REQUEST, names=("upload", "uploads")),
    _C.OTHER: Rule(handover=_Time.REQUESTS, final=None),
}
"""In the order in which people are told of them."""


class ClassTimeouts(msgspec.Struct, frozen=True):
    """How long the classes may take in a drain, in seconds from its beginning."""

    requests: float
    """``--drain-timeout``; of whatever has no time of its own, too."""
    streams: float
    """``--drain-timeout-stream``."""
    websockets: float
    """``--drain-timeout-websocket``: from being told to the close; the spread comes on top."""

    @property
    def whole(self) -> float:
        """Seconds after which nothing is left, whatever it was."""
        return max(self.requests, self.streams, self.websockets + _spread(RULES[_C.WEBSOCKET].spread, self))

    def within(self, seconds: float) -> ClassTimeouts:
        """The same, with nothing later than that."""
        less = ClassTimeouts(min(self.requests, seconds), min(self.streams, seconds), self.websockets)
        before = max(0.0, seconds - _spread(RULES[_C.WEBSOCKET].spread, less))
        return ClassTimeouts(less.requests, less.streams, min(self.websockets, before))


def uniform(seconds: float) -> ClassTimeouts:
    """One time for all classes: of a stop, and of a drain that has to be short. WebSockets are closed at once."""
    return ClassTimeouts(seconds, seconds, 0.0)


def before_shutdown(timeouts: ClassTimeouts) -> ClassTimeouts:
    """The times of connections in a stop that, with the app's shutdown after them, takes no longer than these."""
    whole = timeouts.whole
    return timeouts.within(whole - min(SHUTDOWN_RESERVE, whole / 4))


class DrainProgress(msgspec.Struct, frozen=True):
    """What the supervisor knows of a worker's drain."""

    since: float
    """When it was told to drain, or was found to."""
    times: ClassTimeouts
    streamed: float | None = None
    """When it last said to have what may go on for longer than a request."""
    cut_told: Mapping[str, int] = {}
    """Of what it has cut, by class, what was announced."""
    cut_told_at: float | None = None
    """When any last was."""


def longest(kinds: Iterable[str], timeouts: ClassTimeouts) -> float:
    """Seconds after which connections of these classes, or of others that have no time of their own, have ended."""
    own = {str(kind): rule.handover for kind, rule in RULES.items() if isinstance(rule.handover, _Time)}
    fields = {own.get(kind, _Time.REQUESTS) for kind in kinds} or {_Time.REQUESTS}
    return max(float(getattr(timeouts, field)) for field in fields)


def overdue_at(drain: DrainProgress) -> float:
    """When a worker should have ended its drain by itself, by what it has told of it.

    What comes of a stream, or of a request that ended in time, such as a task after the answer, has the time of a
    request from then on.
    """
    first, times = drain.since + drain.times.requests, drain.times
    since = first if drain.streamed is None else max(first, drain.streamed)
    return min(drain.since + times.whole, since + times.requests)


def ends_at(
    kind: ConnectionClass,
    *,
    timeouts: ClassTimeouts,
    final: bool,
    since: float = 0.0,
    place: float = 0.0,
    lost: float = 0.0,
    hurried: HurriedStreams = HurriedStreams.NONE,
    event_source: bool = False,
) -> float:
    """When a draining worker ends a connection that is of this class, in seconds after the drain's beginning.

    Args:
        kind: what the connection is doing now.
        timeouts: seconds that each class may take.
        final: whether nobody takes over.
        since: when it came to do that; before 0, or 0 where that is not known, for what it did when the drain began.
        place: this connection's place among its fellows, 0 to 1, for spreading.
        lost: seconds since then in which the worker stood still.
        hurried: which endless answers are to end at once.
        event_source: whether it is one that its client asks for again by itself.
    """
    rule = RULES[kind]
    wait = getattr(timeouts, rule.handover) if isinstance(rule.handover, _Time) else rule.handover
    from_start = max(since, 0.0)
    ends = from_start + wait
    if final and rule.final is not None:
        ends = min(ends, max(since + rule.final, from_start + min(rule.final, LAME_DUCK)))
        ends += lost if kind in MAY_ASK else 0.0
    window = _spread(rule.spread_final if final else rule.spread, timeouts)
    usual = min(ends + place * window, timeouts.whole)
    comes_back = event_source and kind is _C.STREAM
    if rule.endless and (hurried is HurriedStreams.ALL or (hurried is HurriedStreams.EVENT_SOURCES and comes_back)):
        return min(usual, from_start + rule.hurried)
    return usual


def _spread(window: float, timeouts: ClassTimeouts) -> float:
    """A spread takes at most a quarter of the time for requests, so that a short drain still ends in order."""
    return min(window, timeouts.requests / 4)
