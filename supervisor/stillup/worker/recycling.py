"""When a worker has done enough and asks to be replaced: by requests, by age, by memory, or since it was told to."""

from __future__ import annotations

import random
import time

import msgspec
from uvicorn.config import Config

from stillup.asgi.uvicorn_config import requests_jitter
from stillup.core.worker_settings import WorkerSettings
from stillup.wire.byte_size import show_size

AGE_JITTER = 0.1
"""Up to that part of the age limit comes on top, by chance: workers that started together are not replaced together."""


class RecyclingLimits(msgspec.Struct, frozen=True):
    """The limits of one worker. None: there is no such limit."""

    requests: int | None = None
    age: float | None = None
    """Seconds."""
    rss: int | None = None
    """Bytes."""

    def reason(self, *, requests: int, age: float, rss: int) -> str:
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


class Recycling:
    """Whether this worker, which starts now, asks to be replaced."""

    def __init__(self, limits: RecyclingLimits) -> None:
        self._limits = limits
        self._began = time.monotonic()
        self.asked = ""
        """Why it was asked to leave, whatever its limits; empty while it was not."""

    def reason(self, *, requests: int, rss: int) -> str:
        """Why it asks to be replaced, after so many requests and with so many bytes in memory; empty while not."""
        age = time.monotonic() - self._began
        return self._limits.reason(requests=requests, age=age, rss=rss) or self.asked


def draw_limits(config: Config, settings: WorkerSettings) -> RecyclingLimits:
    """The limits of a new worker."""
    return draw(
        random.SystemRandom(),
        requests=config.limit_max_requests,
        requests_jitter=requests_jitter(config),
        age=settings.max_worker_age,
        rss=settings.max_worker_rss,
    )


def draw(
    chance: random.Random,
    *,
    requests: int | None,
    requests_jitter: int,
    age: float | None,
    rss: int | None,
) -> RecyclingLimits:
    """The limits that were set, each with its jitter on top. Memory has none: it has its own."""
    return RecyclingLimits(
        requests=requests + chance.randint(0, requests_jitter) if requests is not None else None,
        age=age * chance.uniform(1.0, 1.0 + AGE_JITTER) if age is not None else None,
        rss=rss,
    )
