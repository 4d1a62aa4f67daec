"""Which threads of the app keep a worker's process, once it has nothing else to do.

Python waits for every thread that is no daemon before it ends (threading), without a word.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

PATIENCE: Final = 1.0
"""Seconds that such threads have to end by themselves before anybody is told."""
MOST: Final = 4
"""Threads that are named; of more it is said how many."""
_LIBRARY: Final = sysconfig.get_path("stdlib")


def tell_of_them(tell: Callable[[str], None]) -> None:
    """Have ``tell`` called with their names and places, from another thread, if the process is still there then."""
    threading.Thread(target=_watch, args=(tell,), name="stillup", daemon=True).start()


def _watch(tell: Callable[[str], None]) -> None:
    time.sleep(PATIENCE)
    if found := lasting_threads():
        tell(found)


def lasting_threads() -> str:
    """Those that are no daemons, beside the main one and the caller: ``poll (main.py:12), ...``; empty without any."""
    besides = {threading.main_thread(), threading.current_thread()}
    lasting = [one for one in threading.enumerate() if not one.daemon and one not in besides]
    frames = sys._current_frames()  # noqa: SLF001 - what faulthandler shows, for one line
    told = [f"{one.name} ({_place(frames.get(one.ident or 0))})" for one in lasting[:MOST]]
    more = [f"{len(lasting) - MOST} more"] if len(lasting) > MOST else []
    return ", ".join(told + more)


def _place(frame: FrameType | None) -> str:
    """Where a thread is: its innermost line that is not the standard library's, if there is one."""
    innermost = frame
    while frame is not None and frame.f_code.co_filename.startswith((_LIBRARY, "<frozen")):
        frame = frame.f_back
    if (at := frame or innermost) is None:
        return "ended"
    return f"{Path(at.f_code.co_filename).name}:{at.f_lineno}"
