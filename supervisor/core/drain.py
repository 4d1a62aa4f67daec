"""When a draining worker ends a connection, by class.

A deadline is when the worker stops waiting for a connection to finish by itself; it counts from when the connection
came to do what it does, so that a request whose head begins late in a drain has as long for it as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ConnectionClass(StrEnum):
    """What a connection is doing, as far as its end is concerned."""

    UNREAD = "unread"
    """Accepted; not one byte of a request was read."""
    IDLE = "idle"
    """Between requests."""
    HALF_READ = "half-read"
    """Part of a request head was read."""
    IN_PROGRESS = "in-progress"
    """A request is being answered; uploads and chunked answers are among these."""
    ANSWERED = "answered"
    """The answer is out, the request's body still arrives."""
    STREAM = "stream"
    """An endless answer: ``text/event-stream``."""
    UPGRADING = "upgrading"
    """A WebSocket that the app has not accepted yet."""
    WEBSOCKET = "websocket"
    OTHER = "other"
    """A protocol that we don't know."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How long a class is waited for. ``None``: as long as the drain may take."""

    handover: float | None
    """With a new generation beside it."""
    final: float | None
    """With nobody to come after."""
    spread: float = 0.0
    """Ends of this class are spread over that many seconds, so that their clients don't come back all at once."""
    spread_final: float = 0.0


_HEAD = 10.0
"""Seconds that a request head may still take."""

RULES: Mapping[ConnectionClass, Rule] = {
    # An answer to a last request carries "Connection: close", so these are waited for, not cut.
    ConnectionClass.UNREAD: Rule(handover=_HEAD, final=2.0),
    ConnectionClass.IDLE: Rule(handover=None, final=0.0, spread_final=1.0),
    ConnectionClass.HALF_READ: Rule(handover=_HEAD, final=_HEAD),
    ConnectionClass.IN_PROGRESS: Rule(handover=None, final=None),
    ConnectionClass.ANSWERED: Rule(handover=None, final=0.0),
    ConnectionClass.STREAM: Rule(handover=None, final=None),
    ConnectionClass.UPGRADING: Rule(handover=None, final=None),
    ConnectionClass.WEBSOCKET: Rule(handover=0.0, final=0.0, spread=2.0, spread_final=1.0),
    ConnectionClass.OTHER: Rule(handover=None, final=None),
}

ENDLESS = frozenset({ConnectionClass.STREAM, ConnectionClass.WEBSOCKET})
"""The classes that a hurried drain ends at once."""


def ends_at(
    kind: ConnectionClass,
    *,
    timeout: float,
    final: bool,
    since: float = 0.0,
    place: float = 0.0,
    hurried: bool = False,
) -> float:
    """When a draining worker ends a connection that is of this class, in seconds after the drain's beginning.

    Args:
        kind: what the connection is doing now.
        timeout: seconds that the whole drain may take; no class outlasts it.
        final: whether nobody takes over.
        since: when it came to do that; 0 for what it did already when the drain began.
        place: this connection's place among its fellows, 0 to 1, for spreading.
        hurried: whether endless answers are to end at once.
    """
    if hurried and kind in ENDLESS:
        return min(since, timeout)
    rule = RULES[kind]
    wait = rule.final if final else rule.handover
    if wait is None:
        return timeout
    window = rule.spread_final if final else rule.spread
    # A spread takes at most a quarter of the drain, so that a short drain still ends in order.
    return min(since + wait + place * min(window, timeout / 4), timeout)
