"""When a worker has done enough and is to be replaced: by requests, by age, by memory."""

from __future__ import annotations

import random
from dataclasses import dataclass

from supervisor.wire.size import show_size

AGE_JITTER = 0.1
"""Up to that part of the age limit comes on top, by chance: workers that started together are not worn together."""


@dataclass(frozen=True, slots=True)
class Wear:
    """The limits of one worker. None: there is no such limit."""

    requests: int | None = None
    age: float | None = None
    """Seconds."""
    rss: int | None = None
    """Bytes."""

    def why(self, *, requests: int, age: float, rss: int) -> str:
        """Which limit is reached, in words for the log; empty while none is.

        Args:
            requests: answered so far.
            age: seconds since the worker's start.
            rss: bytes of it in memory now.
        """
        if self.requests is not None and requests >= self.requests:
            return f"{requests} requests (--limit-max-requests)"
        if self.age is not None and age >= self.age:
            return f"age {age:.0f} s (--max-worker-age)"
        if self.rss is not None and rss >= self.rss:
            return f"rss {show_size(rss)} (--max-worker-rss)"
        return ""


def draw(
    chance: random.Random,
    *,
    requests: int | None,
    requests_jitter: int,
    age: float | None,
    rss: int | None,
) -> Wear:
    """The limits of a new worker: those that were set, each with its jitter on top. Memory has none: it has its own."""
    return Wear(
        requests=requests + chance.randint(0, requests_jitter) if requests is not None else None,
        age=age * chance.uniform(1.0, 1.0 + AGE_JITTER) if age is not None else None,
        rss=rss,
    )
