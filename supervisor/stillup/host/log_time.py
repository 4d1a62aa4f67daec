"""The times of log lines: each text is made once a second, and its milliseconds are put behind it."""

from __future__ import annotations

import time
from typing import Final

_LOCAL: Final = "%Y-%m-%d %H:%M:%S"
_UTC: Final = "%Y-%m-%dT%H:%M:%S"
_last: dict[str, tuple[int, str]] = {}
"""By format, the second that was asked for last, and its text. A thread that comes between makes it once more."""


def local(at: float) -> str:
    """For people: ``2026-11-28 15:50:21.351``, local time; ``at``: seconds since the epoch."""
    return _said(_LOCAL, at)


def utc(at: float) -> str:
    """For programs: ``2026-11-28T15:50:21.351+00:00``."""
    return f"{_said(_UTC, at)}+00:00"


def _said(form: str, at: float) -> str:
    second = int(at)
    last, text = _last.get(form, (-1, ""))
    if last != second:
        text = time.strftime(form, time.localtime(second) if form is _LOCAL else time.gmtime(second))
        _last[form] = second, text
    return f"{text}.{int((at - second) * 1000):03d}"
