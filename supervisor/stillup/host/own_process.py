"""What this process can say of itself."""

from __future__ import annotations

import os
import time

from stillup import __version__
from stillup.host import memory
from stillup.host.processes import started
from stillup.wire.api_shapes import ProcessFigures


def measured() -> ProcessFigures:
    """Its figures, as they are now."""
    pid = os.getpid()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started(pid) / os.sysconf("SC_CLK_TCK")
    return ProcessFigures(
        version=__version__, pid=pid, uptime=max(0.0, age), cpu=time.process_time(), memory=memory.resident()
    )


def instance() -> str:
    """What tells it from every other process of this host; the same over execve(2)."""
    return f"{os.getpid()}-{started(os.getpid())}"
