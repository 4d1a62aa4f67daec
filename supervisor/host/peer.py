"""Who is at the other end of a Unix socket, by the kernel's word as of connect() (unix(7), pidfd_open(2))."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
from pathlib import Path
from typing import Final

from supervisor.core.access import Principal

_UCRED = struct.Struct("3i")
SO_PEERPIDFD: Final = 77
"""Linux 6.5; not in Python's socket module."""


def principal(sock: socket.socket) -> Principal:
    """Read SO_PEERCRED: pid, uid and primary gid of whoever connected."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return Principal(uid=uid, gid=gid, pid=pid)


def is_process(sock: socket.socket, pidfd: int, pid: int) -> bool:
    """Whether the peer is the very process that ``pidfd`` stands for.

    ``pidfd`` must be of a process that is not reaped, so that its number cannot be another's. Where the kernel gives a
    pidfd of the peer, that one must show the same number, which the kernel turns to -1 when the process is reaped.

    Raises:
        OSError: it cannot be found out, for want of a descriptor for instance.
    """
    if principal(sock).pid != pid or pid_of(pidfd) != pid:
        return False
    try:
        peer = struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0]
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:  # before Linux 6.5
            return True
        raise
    try:
        return pid_of(peer) == pid
    finally:
        os.close(peer)


def has_hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed its end, be what it sent read or not (POLLHUP, poll(2))."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def pid_of(pidfd: int) -> int:
    """The number of the process that a pidfd stands for; -1 once it is reaped (proc_pid_fdinfo(5))."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    match = re.search(r"^Pid:\s*(-?\d+)$", text, re.MULTILINE)
    return int(match.group(1)) if match else -1
