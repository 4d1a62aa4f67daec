"""How the service has done lately: a point for each interval, made of what was counted before it and after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

import msgspec

from stillup.core.gates import quantile
from stillup.core.model import Fleet
from stillup.core.states import WorkerState
from stillup.core.worker_figures import BACKGROUND

PERIOD: Final = 5.0
"""Seconds of an interval; it is longer while the supervisor was busy, or stopped."""
SPAN: Final = 900.0
"""Seconds that are kept."""
MOST: Final = int(SPAN / PERIOD)
"""Points that are kept."""


class RequestTotals(msgspec.Struct, frozen=True):
    """What all workers have counted, living and dead, at one moment. Counts never fall."""

    at: float
    """By the monotonic clock."""
    requests: int = 0
    errors: int = 0
    """Those of them that were answered with a status of 500 or more."""
    durations: tuple[int, ...] = ()
    """How many began to be answered within each of ``worker_figures.BOUNDS``, and how many later."""
    lag: float = 0.0
    """The newest lag of an event loop, of the worker where it is worst, in seconds."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """What one interval had; durations are seconds, memory is bytes."""

    seconds: float
    """Its length."""
    requests: float
    """Answered in a second."""
    errors: float
    """Of these, those with a status of 500 or more."""
    p50: float | None
    """Until the answer began, which a half of them took at most; None if nothing was answered."""
    p99: float | None
    """The same of all but one of a hundred."""
    lag: float
    """By which an event loop was late at its end, of the worker where that was worst."""
    memory: int
    """Of all workers, pages that they share counted in each."""
    connections: int
    """Open ones."""
    workers: int
    """Those that serve."""
    generation: int | None
    """The one that serves."""


class Point(Interval, frozen=True, kw_only=True):
    """An interval, and when it was."""

    at: float
    """Its end, by the monotonic clock."""


def point(before: RequestTotals, after: RequestTotals, fleet: Fleet) -> Point:
    """The interval between two moments, and the fleet as it is at its end.

    Raises:
        ValueError: no time has passed.
    """
    seconds = after.at - before.at
    if seconds <= 0:
        raise ValueError(f"{seconds} s are no interval")
    took = _since(after.durations, before.durations)
    workers = fleet.workers.values()
    return Point(
        at=after.at,
        seconds=seconds,
        requests=max(0, after.requests - before.requests) / seconds,
        errors=max(0, after.errors - before.errors) / seconds,
        p50=quantile(took, 0.5) if sum(took) else None,
        p99=quantile(took, 0.99) if sum(took) else None,
        lag=after.lag,
        memory=sum(worker.figures.memory for worker in workers),
        connections=sum(
            count for worker in workers for kind, count in worker.figures.classes.items() if kind != BACKGROUND
        ),
        workers=sum(worker.state is WorkerState.SERVING for worker in workers),
        generation=fleet.serving.id if fleet.serving is not None else None,
    )


class Series:
    """The last points, at most MOST of them and none older than SPAN."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=MOST)
        self._last: RequestTotals | None = None

    def add(self, now: RequestTotals, fleet: Fleet) -> None:
        """Add the interval since the totals before these; the first only begins one."""
        last, self._last = self._last, now
        if last is not None and now.at > last.at:
            self._points.append(point(last, now, fleet))

    def since(self, at: float) -> list[Point]:
        """Those that ended after that moment, the oldest first."""
        return [one for one in self._points if one.at > at]


def _since(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(0, after - was) for after, was in zip_longest(now, before, fillvalue=0))
