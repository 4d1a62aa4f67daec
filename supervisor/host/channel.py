"""A SOCK_SEQPACKET connection in an event loop: one packet, with its descriptors, at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

from supervisor.host import descriptors


class Tap:
    """Where somebody may look at every packet of some channels. One ``if`` a packet is its cost while nobody does."""

    look: Callable[[socket.socket, str, bytes, Sequence[int]], None] | None = None
    """Called with the socket, ``in`` or ``out``, the packet and its descriptors, which it must leave as they are.

    It must not raise: a packet that was taken would be lost with its descriptors.
    """


_NOBODY = Tap()


class Channel:
    """Owns the socket. One reader at a time; ``close`` wakes who waits with ConnectionError."""

    def __init__(self, sock: socket.socket, *, limit: int, most: int, tap: Tap = _NOBODY) -> None:
        """Take the socket over; packets have at most ``limit`` bytes and ``most`` descriptors."""
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

    def send_now(self, packet: bytes) -> None:
        """Send one packet without waiting.

        Raises:
            OSError: the buffer is full (BlockingIOError) or the peer is gone.
        """
        self._check()
        self._send(packet, ())

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
        self._sock.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
