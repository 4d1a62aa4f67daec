"""How much memory this process holds (proc(5))."""

from __future__ import annotations

import os
import resource


def resident() -> int:
    """Bytes of this process that are in memory, shared pages included: the second figure of ``/proc/self/statm``.

    proc(5) calls it inaccurate: the kernel adds it up from counters of its own for each thread or processor, and may be
    off by some pages each. Exact figures cost a walk over all mappings (``smaps``), which holds up the process.
    Children are not counted. 0 if it cannot be read, for want of a descriptor for instance.
    """
    try:
        fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        figures = os.read(fd, 256).split()
    finally:
        os.close(fd)
    return int(figures[1]) * resource.getpagesize()
