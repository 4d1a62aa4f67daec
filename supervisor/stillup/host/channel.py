"""A SOCK_SEQPACKET connection in an event loop: one packet, with its descriptors, at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from stillup.host import descriptors


class Tap:
    """Where somebody may look at every packet of some channels. One ``if`` a packet is its cost while nobody does."""

    look: Callable[[socket.socket, str, bytes, Sequence[int]], None] | None = None
    """Called with the socket, ``in`` or ``out``, the packet and its descriptors, which it must leave as they are.

    It must not raise: a packet that was taken would be lost with its descriptors.
    """


_NOBODY = Tap()


class Channel:
    """Owns the socket. One reader at a time; ``close`` wakes who waits with ConnectionError."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        limit: int,
        most: int,
        tap: Tap = _NOBODY,
        close: Callable[[socket.socket], None] = socket.socket.close,
    ) -> None:
        """Take the socket over; packets have at most ``limit`` bytes and ``most`` descriptors.

        ``close`` closes it, with whatever lies unread in it.
        """
        self._close = close
        self._tap = tap
        sock.setblocking(False)
        self._sock = sock
        self._limit = limit
        self._most = most
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._sending = asyncio.Lock()

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._sock.fileno()

    async def send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send one packet, waiting while the peer does not read.

        Raises:
            OSError: the peer is gone.
        """
        async with self._sending:  # a loop has room for one that waits for a descriptor
            while True:
                self._check()
                try:
                    self._send(packet, fds)
                except BlockingIOError:
                    loop = asyncio.get_running_loop()
                    await self._ready(loop.add_writer, loop.remove_writer)
                else:
                    return

    def send_now(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send one packet without waiting.

        Raises:
            OSError: the buffer is full (BlockingIOError) or the peer is gone.
        """
        self._check()
        self._send(packet, fds)

    def _send(self, packet: bytes, fds: Sequence[int]) -> None:
        descriptors.send(self._sock, packet, fds)
        if self._tap.look is not None:
            self._tap.look(self._sock, "out", packet, fds)

    def receive_now(self) -> tuple[bytes, list[int]]:
        """Receive one packet without waiting; else as ``receive``.

        Raises:
            BlockingIOError: there is none.
        """
        self._check()
        return self._take()

    async def receive(self) -> tuple[bytes, list[int]]:
        """Receive one packet; ``b""`` when the peer has closed. The descriptors are the caller's to close.

        Raises:
            PeerError: something was cut short.
            OSError: the connection broke.
        """
        while True:
            self._check()
            try:
                return self._take()
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._ready(loop.add_reader, loop.remove_reader)

    def _take(self) -> tuple[bytes, list[int]]:
        try:
            packet, fds = descriptors.receive(self._sock, self._limit, self._most)
        except ConnectionResetError:
            # Told once, and first, of a peer that ended before it had read everything. What it said itself is there.
            packet, fds = descriptors.receive(self._sock, self._limit, self._most)
        if self._tap.look is not None:
            self._tap.look(self._sock, "in", packet, fds)
        return packet, fds

    async def _ready(self, add: Callable[..., Any], remove: Callable[[Any], Any]) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        add(self._sock, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._closed:
                remove(self._sock)

    def _check(self) -> None:
        if self._closed:
            message = "the channel was closed on this side"
            raise ConnectionAbortedError(message)

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):  # no loop runs any more: there is nobody to wake
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            loop.remove_writer(self._sock)
        for waiter in self._waiters:
            _wake(waiter)
        self._close(self._sock)


def connect_within(sock: socket.socket, path: str, seconds: float) -> None:
    """Connect a blocking socket, waiting for a place in the listener's backlog while that is full.

    A socket with a time limit of Python's does not wait: it is told EAGAIN (unix(7)). The kernel lets those in who
    wait, in their order.

    Raises:
        OSError: as connect(2); BlockingIOError when the time is over.
    """
    ends = time.monotonic() + seconds
    sock.setblocking(True)
    connected = False
    while not connected:
        whole, part = divmod(max(ends - time.monotonic(), 1e-5), 1)
        limit = struct.pack("ll", int(whole), int(part * 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.connect(path)
        # A signal, a stop or a freeze interrupts that wait, which Python takes for a connection that is being made.
        with contextlib.suppress(OSError):
            sock.getpeername()
            connected = True
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bytes(len(limit)))


async def connect_soon(sock: socket.socket, path: str, attempts: int = 50) -> None:
    """Connect a socket in an event loop, trying again for about half a second while the listener's backlog is full.

    Raises:
        OSError: as connect(2); BlockingIOError after the last attempt.
    """
    sock.setblocking(False)
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            attempts -= 1
            if not attempts:
                raise
            await asyncio.sleep(0.01)
        else:
            return


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
