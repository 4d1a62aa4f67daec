"""What a process has that the children which it forks would not have, or would share to their harm.

A forked child has one thread, the same open file descriptions (open(2)), and no children of its own. So a thread that
was started is missing in it; what two of them read from one connection, or one epoll set, goes to either; a lock of
flock(2) is everybody's, one of fcntl(2) nobody's; and SQLite loses its own (sqlite.org/howtocorrupt.html, 2.6).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Collection, Iterator
from typing import Final

from stillup.host import proc_files

_SQLITE = b"SQLite format 3\0"
_ENDED = (FileNotFoundError, ProcessLookupError)
"""What /proc says of a thread, or of a child that was waited for, that has ended meanwhile."""

ENDING: Final = 0.1
"""Seconds in which a thread that Python knows no more, or never did, may end: one that was waited for, and the one by
which faulthandler keeps a time, have a few instructions left."""
LOOK: Final = 0.001
"""Seconds between two looks at such threads."""
_SHARED_STATE = ("eventpoll", "inotify", "io_uring")
"""Descriptors whose state is the file description's."""


def open_descriptors() -> set[int]:
    """Those of this process."""
    fds = {int(name) for name in os.listdir("/proc/self/fd")}
    return {fd for fd in fds if _is_open(fd)}  # but for the one of the look itself


def hazards(known: Collection[int]) -> list[str]:
    """What there is, each in a few words; ``known``: descriptors that are not looked at."""
    found = [*_threads(), *_children()]
    for fd in sorted(open_descriptors().difference(known)):
        found += _of_descriptor(fd)
    return found


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _threads() -> Iterator[str]:
    """But for this one: those of Python by their names, others by the kernel's, unless they are just ending."""
    names = {one.native_id: one.name for one in threading.enumerate()}
    until = time.monotonic() + ENDING
    while _others() - names.keys() and time.monotonic() < until:
        time.sleep(LOOK)
    for task in sorted(_others()):
        with contextlib.suppress(*_ENDED):
            yield f"the thread {names.get(task) or proc_files.read('self', f'task/{task}/comm').strip()}"


def _others() -> set[int]:
    """The kernel's numbers of all threads but this one, which in a forked process Python knows by an earlier one."""
    return {int(name) for name in os.listdir("/proc/self/task")} - {threading.get_native_id()}


def _children() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        try:
            pids = proc_files.read("self", f"task/{task}/children").split()
        except _ENDED:  # or the kernel is without CONFIG_PROC_CHILDREN
            continue
        for pid in pids:
            with contextlib.suppress(*_ENDED):
                yield f"the child process {pid} ({_command(pid)})"


def _command(pid: str) -> str:
    """Its words; its program's name, while it begins (execve(2) sets them after the parent of a vfork(2) goes on)."""
    words = proc_files.read(pid, "cmdline").replace("\0", " ").strip()
    if not words and proc_files.stat_fields(pid)[0] == "Z":
        return "which has ended"
    return words[:60] or proc_files.read(pid, "comm").strip()


def _of_descriptor(fd: int) -> Iterator[str]:
    what = os.readlink(f"/proc/self/fd/{fd}")
    if what.startswith("socket:"):
        yield from _of_socket(fd)
    elif any(kind in what for kind in _SHARED_STATE):
        yield f"descriptor {fd} ({what})"
    elif _is_sqlite(fd):
        yield f"the open SQLite database {what}"
    elif any(line.startswith("lock:") for line in proc_files.read("self", f"fdinfo/{fd}").splitlines()):
        yield f"a lock on {what}"


def _is_sqlite(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(_SQLITE), 0) == _SQLITE
    except OSError:  # it is open for writing alone
        return False


def _of_socket(fd: int) -> Iterator[str]:
    """A datagram may be anybody's, as of a log; what is connected, or listens, has one user."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.type == socket.SOCK_DGRAM:
            return
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield f"a listening socket ({_name(sock.getsockname())})"
            return
        try:
            peer = _name(sock.getpeername())
        except OSError:
            peer = "not connected"
        yield f"a socket ({peer})"


def _name(address: object) -> str:
    match address:
        case str() as path:
            return path or "unnamed"
        case (host, port, *_):
            return f"{host}:{port}"
        case other:
            return repr(other)
