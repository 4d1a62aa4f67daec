"""Descriptors in flight: sendmsg and recvmsg with SCM_RIGHTS (unix(7), cmsg(3)).

``socket.recv_fds`` is not used: it drops its flags and returns inheritable descriptors.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import stat
from collections.abc import Iterable, Sequence
from typing import Final

from stillup.errors import PeerError
from stillup.host.blocking_close import close_in_thread

_INT = array.array("i").itemsize
_ROOM: Final = 255
"""The highest descriptor of a table that most processes get along with; it grows by the power of two."""
MOST_SENT: Final = 253
"""Descriptors that a packet may have (SCM_MAX_FD)."""
ANCILLARY: Final = socket.CMSG_SPACE(MOST_SENT * _INT)
"""Bytes, for all that can come beside a packet: what the kernel cuts off it closes at once, which may take its time."""


def send(sock: socket.socket, packet: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet with descriptors; the caller keeps its own copies.

    Raises:
        BlockingIOError: the socket's buffer is full.
        OSError: as sendmsg(2).
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, limit: int, most: int) -> tuple[bytes, list[int]]:
    """Receive one packet of at most ``limit`` bytes and ``most`` descriptors; ``b""`` and none at the end.

    The descriptors are close-on-exec and the caller's to close.

    Raises:
        BlockingIOError: nothing is there yet.
        PeerError: the packet or its descriptors did not fit and were cut; those that came are closed.
        OSError: as recvmsg(2).
    """
    packet, ancillary, flags, _ = sock.recvmsg(limit, ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    fds = rights(ancillary)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > most:
        close_in_thread(fds)
        what = "packet was" if flags & socket.MSG_TRUNC else "descriptors were"
        raise PeerError(f"the {what} cut short by the kernel")
    return packet, fds


def rights(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came beside a packet, in their order; the caller's to close."""
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(memoryview(data[: len(data) - len(data) % _INT]).cast("i"))
    return fds


def pipe() -> tuple[int, int]:
    """A pipe whose read end does not block; both ends are close-on-exec and the caller's."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    return read, write


def duplicate(fd: int) -> int:
    """A close-on-exec copy of a descriptor, the caller's."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def make_room() -> None:
    """Have the kernel's table of our descriptors grow now, while this process has one thread.

    With more than one each growth waits for all processors to have noticed (``expand_fdtable``, Linux 6.1): 10 ms.
    """
    with contextlib.suppress(OSError):  # the limit may be lower
        os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _ROOM))


def put_in_place(fd: int, target: int) -> None:
    """Let ``target`` mean what ``fd`` means, and close ``fd``."""
    os.dup2(fd, target)
    os.close(fd)


def blind(fds: Iterable[int]) -> None:
    """Let them mean /dev/null in this process, as far as they are open.

    Not closed: their numbers would come to mean something else, which a later close would close.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        with contextlib.suppress(OSError):
            os.fstat(fd)
            os.dup2(null, fd, inheritable=False)
    os.close(null)


def writable(fds: Iterable[int]) -> bool:
    """Whether a write to each would begin at once, be it only to fail: nobody's reader keeps writers waiting."""
    poll = select.poll()
    wanted = set(fds)
    for fd in wanted:
        poll.register(fd, select.POLLOUT)
    return len(poll.poll(0)) == len(wanted)


def write_all(fd: int, data: bytes) -> None:
    """Write it all, waiting as long as it takes, also where another process has made the description non-blocking.

    Raises:
        OSError: nobody can read it any more.
    """
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def close(fds: Iterable[int]) -> None:
    """Close them all; one that is closed already is no reason to keep the rest."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def ensure_standard() -> None:
    """Open /dev/null on those of 0, 1 and 2 that are closed, so that no socket becomes somebody's stdout."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:  # noqa: PLR2004 - past stderr
            os.close(fd)
            return
        os.set_inheritable(fd, True)


def ensure_write_only() -> None:
    """Open stdout and stderr anew where they can be read from, too, as a terminal can: workers are given copies.

    A file is written to at its end from here on, since those who share it have no position in common any more. What
    cannot be opened anew stays: a socket, and a terminal of another user's (after su(1)), whose rights we don't have.
    """
    for fd in (1, 2):
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            continue
        append = os.O_APPEND if stat.S_ISREG(os.fstat(fd).st_mode) else 0
        with contextlib.suppress(OSError):
            again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | append)
            put_in_place(again, fd)
