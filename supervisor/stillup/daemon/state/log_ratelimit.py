"""A limit for warnings that clients can cause: each kind is logged at most once in PAUSE seconds."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

PAUSE: Final = 10.0
"""Seconds between two warnings of one kind."""


class LogRatelimit(logging.Filter):
    """Lets one record of a kind pass every ``pause`` seconds, with the number of those that were dropped since.

    A kind is a message before its arguments are put in. Errors always pass: they are ours, and no two need be alike.
    """

    def __init__(self, pause: float = PAUSE, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._pause = pause
        self._now = now
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        kind, now = str(record.msg), self._now()
        last, kept = self._kinds.get(kind, (-math.inf, 0))
        if now - last < self._pause:
            self._kinds[kind] = last, kept + 1
            return False
        self._kinds[kind] = now, 0
        if kept:
            record.msg = f"{kind} (and {kept} more like it)"
        return True
