"""The lock that a leader holds: a record lock (fcntl_locking(2), F_SETLK) on a socket without an address.

1. A record lock is a process's own: it ends with the process, and a child that it forks has none. One by flock(2) or
   F_OFD_SETLK, and a bound address, belong to what descriptors share: a child of a dead leader's would keep them.
2. It ends with the first descriptor of the socket that its process closes, too: a process is to have one, and nobody
   else's code opens another, since there is no name by which it could.
3. No other process can take it without a descriptor, which only who is told to lead is given. A file has a name, or
   can be opened by way of /proc/PID/fd (a memfd, as well) by whoever is its owner; a socket can't (ENXIO).
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

_FLOCK: Final = "hhqqi4x"
"""``struct flock`` of a 64-bit system: type, whence, start, length, pid."""


def make() -> socket.socket:
    """A lock that nobody holds; close-on-exec, and the caller's.

    Raises:
        OSError: there is no descriptor left.
    """
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def take(fd: int) -> bool:
    """Whether this process holds the lock from here on, or did; else another one does.

    Raises:
        OSError: as fcntl_locking(2).
    """
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES
        return False
    return True


def held_by(fd: int) -> int | None:
    """The pid of the other process that holds the lock, 0 if it has none in our pid namespace; None: nobody does."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)
