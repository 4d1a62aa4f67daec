"""What this process can say of itself."""

from __future__ import annotations

import os
import time
from typing import Final

from stillup import __version__
from stillup.host import memory
from stillup.host.processes import started
from stillup.wire.api_shapes import ProcessFigures

_PID: Final = os.getpid()
_STARTED: Final = started(_PID)
"""Looked up once: later there may be no descriptor to look with."""


def measured() -> ProcessFigures:
    """Its figures, as they are now."""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - _STARTED / os.sysconf("SC_CLK_TCK")
    return ProcessFigures(
        version=__version__, pid=_PID, uptime=max(0.0, age), cpu=time.process_time(), memory=memory.resident()
    )


def instance() -> str:
    """What tells it from every other process of this host; the same over execve(2)."""
    return f"{_PID}-{_STARTED}"
