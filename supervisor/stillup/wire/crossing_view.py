"""The shape in which the control API shows connections that move from worker to worker."""

from __future__ import annotations

import msgspec


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """The adoption queue, in connections."""

    waiting: int
    """In it now, by the kernel's count."""
    capacity: int
    """About how many it holds; while it is more than a quarter full, those that leave wait where they are."""


class CrossingView(QueueView, frozen=True, kw_only=True):
    """Connections that moved from worker to worker, since the service was started."""

    given: int
    """Put into the adoption queue."""
    adopted: int
    """Taken from it."""
    lost: int
    """Dropped between two workers: none should be."""
    closed: int
    """Without a request in progress, and ended by a drain because they could not move."""
    told_to_close: int = 0
    """Ended while a drain's answers said ``Connection: close``, because they could not move."""
    longest: float
    """Seconds; the longest that one was between two workers."""
    sessions_given: int = 0
    """Sessions (WebSockets, streamed answers) among those that were given: their apps had handed them over."""
    sessions_adopted: int = 0
    """Sessions among those that were adopted."""
    sessions_refused: int = 0
    """Sessions that their app had handed over and that ended all the same."""
    unmoved: list[str] = []
    """Why the connections of what serves stay where they are, such as ``--http zttp``; empty if they may move."""
