"""The adoption queue: a SOCK_SEQPACKET socketpair in whose buffer established connections wait for a worker.

A connection in it belongs to no process: it survives the death of any worker as long as somebody has both ends open
(unix(7)). Copies of an end share one buffer, so every worker may read from it, and every worker may write to it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import resource
import select
import socket
import struct
import termios
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.blocking_close import close_in_thread, close_socket_in_thread

SO_COOKIE: Final = 57
"""Linux 4.6; not in Python's socket module."""
BUFFER: Final = 212_992
"""Bytes, of the kernel's memory: its own default, whatever this host has made of that. Room for the largest packet
(less gives EMSGSIZE), and no more: a connection in the queue is one that nobody serves."""
_INT: Final = array.array("i").itemsize


def cookie(sock: socket.socket) -> int:
    """The kernel's own number of a socket (SO_COOKIE): the same for every copy of it, never used twice."""
    return int(struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0])


class AdoptionQueue(msgspec.Struct, frozen=True):
    """Both ends, non-blocking and close-on-exec; owns them."""

    reader: socket.socket
    writer: socket.socket

    @classmethod
    def make(cls) -> AdoptionQueue:
        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER // 2)  # which the kernel doubles (socket(7))
        return cls(reader, writer)

    @classmethod
    def receive(cls, fds: Sequence[int], cookies: Sequence[int]) -> AdoptionQueue:
        """Take two received descriptors for the ends that they were said to be.

        Raises:
            PeerError: one is something else. Both are closed.
        """
        try:
            reader = receive_end(fds[0], cookies[0])
        except PeerError:
            close_in_thread(fds[1:])
            raise
        try:
            return cls(reader, receive_end(fds[1], cookies[1]))
        except PeerError:
            close_socket_in_thread(reader)
            raise

    @property
    def cookies(self) -> tuple[int, int]:
        """Of the reader and of the writer."""
        return cookie(self.reader), cookie(self.writer)

    def waiting(self) -> int:
        """How many connections are in it.

        Raises:
            OSError: there is no descriptor to look with; a ``Gauge`` needs none.
        """
        with contextlib.closing(Gauge(self)) as gauge:
            return gauge.read()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()

    def close_in_thread(self) -> None:
        """The same, with the connections that workers may have put there."""
        close_socket_in_thread(self.reader)
        close_socket_in_thread(self.writer)


def receive_end(fd: int, said: int) -> socket.socket:
    """Take a received descriptor for the end of a queue with that cookie; the socket owns it from here on.

    Raises:
        PeerError: it is something else. The descriptor is closed.
    """
    try:
        end = socket.socket(fileno=fd)
    except OSError as error:
        close_in_thread([fd])
        raise PeerError("adoption queue: what came is no socket") from error
    if end.family != socket.AF_UNIX or end.type != socket.SOCK_SEQPACKET or cookie(end) != said:
        close_socket_in_thread(end)
        raise PeerError("adoption queue: what came is not the end of it that it was said to be")
    return end


class Gauge:
    """Counts the connections in a queue. It opens its file once, so that it can count when no descriptor is free."""

    def __init__(self, queue: AdoptionQueue) -> None:
        """Look at the queue's reading end, which must stay open.

        Raises:
            OSError: there is no descriptor for it.
        """
        self._fd = os.open(f"/proc/self/fdinfo/{queue.reader.fileno()}", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        """How many there are now (proc_pid_fdinfo(5), ``scm_fds``: Linux 5.5)."""
        match = re.search(rb"^scm_fds:\s*(\d+)$", os.pread(self._fd, 4096, 0), re.MULTILINE)
        return int(match.group(1)) if match else 0

    def close(self) -> None:
        os.close(self._fd)


def capacity(packet: bytes, count: int) -> int:
    """About how many connections a queue holds, if they come as in this packet, which describes ``count`` of them.

    A queue made for the purpose is filled, since the kernel counts its own memory and not the packets' bytes. An
    unprivileged user may have no more descriptors in flight than RLIMIT_NOFILE (unix(7), ETOOMANYREFS).
    """
    probe = AdoptionQueue.make()
    sent = 0
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                probe.writer.send(packet)
                sent += 1
    finally:
        probe.close()
    fits = sent * count
    return fits if os.geteuid() == 0 else min(fits, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def send(writer: socket.socket, packet: bytes, fds: Iterable[int]) -> None:
    """Put connections into the queue; the caller still has its own copies, to close.

    Raises:
        BlockingIOError: the queue is full.
        OSError: with ETOOMANYREFS, this user has more descriptors in flight than RLIMIT_NOFILE lets it (unix(7));
            anything else is no state of a healthy queue.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    writer.sendmsg([packet], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def has_ended(reader: socket.socket) -> bool:
    """Whether nobody is left who could put anything in, and nothing is left in it.

    An empty packet reads as the end does (recv(2)), and any worker may have put it there. One that shuts the queue down
    (shutdown(2)) has ended it for all.
    """
    poll = select.poll()
    poll.register(reader, select.POLLRDHUP)
    if not poll.poll(0):
        return False
    left = array.array("i", [0])
    fcntl.ioctl(reader, termios.FIONREAD, left)
    return left[0] == 0


def is_writable(writer: socket.socket) -> bool:
    """Whether the kernel calls it so: while what is in it takes at most a quarter of its buffer."""
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    return bool(poll.poll(0))


class Reserve:
    """Descriptors kept open for nothing, so that there is room when connections come.

    A receiver without free descriptors does not wait: the kernel drops what does not fit, and those clients are gone.
    """

    def __init__(self, size: int, *, files: bool = False) -> None:
        """Keep ``size`` of them, once filled; with ``files`` each is a file of its own, which the machine counts."""
        self._size = size
        self._files = files
        self._held: list[int] = []

    def fill(self) -> None:
        """Hold as many as were asked for.

        The kernel gives out numbers below the limit alone, so one above it, which was lowered since, makes no room.

        Raises:
            OSError: there are not so many; those that there were are held.
        """
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if self._held and max(self._held) >= limit:
            descriptors.close(fd for fd in self._held if fd >= limit)
            self._held = [fd for fd in self._held if fd < limit]
        while len(self._held) < self._size:
            self._held.append(self._one_more())

    def _one_more(self) -> int:
        if self._files or not self._held:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return descriptors.duplicate(self._held[0])

    @property
    def is_full(self) -> bool:
        """Whether as many are held as were asked for."""
        return len(self._held) == self._size

    def spend(self) -> bool:
        """Make room for one; False when none is held."""
        if self._held:
            os.close(self._held.pop())
            return True
        return False

    def free(self) -> None:
        """Make the room."""
        descriptors.close(self._held)
        self._held.clear()


class Received(msgspec.Struct, frozen=True):
    """What one packet brought. Fewer descriptors than it describes: the kernel had no room for the rest."""

    packet: bytes
    fds: list[int]


def receive(reader: socket.socket, limit: int, most: int) -> Received:
    """Take one packet; empty once every writer has closed and nothing is left. The descriptors are the caller's.

    Unlike ``descriptors.receive`` it keeps what got through: those are connections with somebody at their other end.

    Raises:
        BlockingIOError: nothing is there.
        OSError: as recvmsg(2).
    """
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    packet, ancillary, _, _ = reader.recvmsg(limit, socket.CMSG_SPACE(most * _INT), flags)
    return Received(packet, descriptors.rights(ancillary))
