"""The terminal that we were started from (tty(4)): whether it is still there, and who reads from it.

Workers lead sessions of their own, and have no controlling terminal. To read from one that is another session's the
kernel asks for no foreground process group (job control, termios(3)): so a debugger in a worker can, by a descriptor
that it was given. One at a time: who reads holds a lock on the terminal (flock(2)), which ends with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios
import time
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from stillup.host import proc_files

_STDIN: Final = 0
_PAUSE: Final = 0.2
"""Seconds between two looks at whether what is typed is for us."""
_READING: Final = os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC
Modes: TypeAlias = list[Any]
"""What termios(3) calls so: echo, line editing and the like."""


def is_there() -> bool:
    """Whether this process has a controlling terminal that has not hung up."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.tcgetpgrp(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def is_ours() -> bool:
    """Whether there is a terminal whose end is ours; not if we were started with SIGHUP ignored, as nohup does."""
    return is_there() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def is_stdin() -> bool:
    """Whether our stdin is our controlling terminal, and we are in its foreground: what is typed is for us."""
    try:
        return os.tcgetpgrp(_STDIN) == os.getpgrp()
    except OSError:
        return False


def open_stdin() -> int:
    """Open our stdin, a terminal, anew for reading alone; the caller's to close.

    Raises:
        OSError: it has hung up.
    """
    try:
        return os.open(f"/proc/self/fd/{_STDIN}", _READING)
    except PermissionError:  # another user's terminal, after su(1)
        return fcntl.fcntl(_STDIN, fcntl.F_DUPFD_CLOEXEC, 3)


@contextlib.contextmanager
def read_alone() -> Iterator[None]:
    """Wait until nobody else reads from the terminal that is our stdin, then be the one who does.

    And until what is typed there is for our parent's process group: it may have been put into the background.
    """
    try:
        fd = open_stdin()
    except OSError:  # it has hung up, and says so to who reads
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        while not _is_for(os.getppid()):
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(fd)


def _is_for(pid: int) -> bool:
    """Whether a process is in the foreground of its terminal, and not stopped; true of one that has none.

    Where that cannot be seen nobody else waits for what is typed.
    """
    try:
        state, _, group, _, terminal, foreground = proc_files.stat_fields(pid)[:6]
    except OSError:
        return True
    return terminal == "0" or (state not in "Tt" and group == foreground)


def is_read() -> bool:
    """Whether somebody reads alone from the terminal that is our stdin; nobody does if it is none."""
    if not os.isatty(_STDIN):  # to open a pipe anew may take for ever
        return False
    try:
        fd = open_stdin()
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def modes() -> Modes | None:
    """Those of the terminal that is our stdin; None if it is none, or not for us."""
    try:
        return termios.tcgetattr(_STDIN) if is_stdin() else None
    except termios.error:
        return None


def restore(before: Modes | None) -> None:
    """Give the terminal its modes back, unless somebody reads from it: a debugger that was killed leaves its own."""
    if before is not None and not is_read():
        set_modes(before)


def set_modes(wanted: Modes | None) -> None:
    """Give the terminal these modes, if it is for us."""
    if wanted is not None and is_stdin():
        with contextlib.suppress(termios.error):
            termios.tcsetattr(_STDIN, termios.TCSANOW, wanted)
