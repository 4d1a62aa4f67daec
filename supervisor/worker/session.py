"""The worker's side of the hand-off channel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from dataclasses import dataclass, field
from typing import TypeVar

from supervisor.errors import PeerError
from supervisor.host import descriptors, peer, shared
from supervisor.host.adoption import AdoptionQueue, receive_end
from supervisor.host.channel import Channel
from supervisor.host.sockets import describe, receive_listener
from supervisor.wire import handoff
from supervisor.wire.figures import CELLS, LAYOUT, OF_LAYOUT, Cells
from supervisor.wire.handoff import (
    Batch,
    BootFailed,
    FromSupervisor,
    FromWorker,
    Hello,
    Offer,
    Refusal,
    Resume,
    Resumed,
    Return,
    Taken,
    Welcome,
)

logger = logging.getLogger("uvicorn.error")

M = TypeVar("M", Welcome, Offer, Batch, Return, Taken, Resumed)

HELLO_DEADLINE = 30.0
"""Seconds that the supervisor may take for each step of the hand-off."""


@dataclass
class Session:
    """A worker's channel, who it is, and the descriptors that it was handed. Owns all of them."""

    path: str
    """Of ``handoff.sock``."""
    nonce: str
    channel: Channel
    welcome: Welcome
    stdout: int
    stderr: int
    listeners: list[tuple[str, socket.socket]]
    queue: AdoptionQueue
    older: list[socket.socket] = field(default_factory=list)
    """Reading ends of other queues, into which workers of other supervisors may still put connections."""
    figures: Cells = field(default_factory=lambda: [0] * CELLS)
    """Where this worker counts (``wire.figures``); of use to itself alone unless the supervisor has given a file."""

    async def say(self, message: FromWorker) -> None:
        """Tell the supervisor.

        Raises:
            OSError: it is gone.
        """
        await self.channel.send(handoff.encode(message))

    def say_now(self, message: FromWorker) -> None:
        """Tell the supervisor before a loop runs, or from where nothing may wait; if it is gone, it is not told."""
        with contextlib.suppress(OSError):
            self.channel.send_now(handoff.encode(message))

    async def hear(self) -> FromSupervisor | None:
        """The supervisor's next word, or None when it has hung up or died.

        Raises:
            PeerError: it is no word of the protocol.
        """
        try:
            packet, fds = await self.channel.receive()
        except OSError:
            return None
        descriptors.close(fds)  # after the hand-off none is expected
        return handoff.decode_from_supervisor(packet) if packet else None

    async def resume(self, *, draining: bool) -> bool:
        """Go to whoever listens now, and give copies of what is held; whether that is our supervisor from here on.

        Args:
            draining: what the worker does; else it serves.
        """
        self.channel.close()
        with contextlib.ExitStack() as undo:
            try:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
                channel = Channel(sock, limit=handoff.MESSAGE_LIMIT, most=handoff.BATCH_LIMIT)
                undo.callback(channel.close)
                sock.connect(self.path)
                _check_owner(sock, self.path)
                async with asyncio.timeout(HELLO_DEADLINE):
                    await self._give_copies(channel, draining=draining)
            except (OSError, PeerError) as error:  # a TimeoutError is an OSError
                logger.debug("no supervisor takes this worker back: %s", error or "no answer in time")
                return False
            undo.pop_all()
        self.channel = channel
        return True

    async def _give_copies(self, channel: Channel, *, draining: bool) -> None:
        held = [(name, listener) for name, listener in self.listeners if listener.fileno() >= 0]
        ends = [self.queue.reader, self.queue.writer]
        whole = all(end.fileno() >= 0 for end in ends)
        infos = [describe(name, listener) for name, listener in held]
        cookies = self.queue.cookies if whole else None
        await channel.send(handoff.encode(Resume(handoff.PROTOCOL, self.nonce, draining, self.welcome, infos, cookies)))
        await _answer(channel, Return)
        sockets = [listener for _, listener in held] + (ends if whole else [])
        for start in range(0, len(sockets), handoff.BATCH_LIMIT):
            batch = [sock.fileno() for sock in sockets[start : start + handoff.BATCH_LIMIT]]
            await channel.send(handoff.encode(Batch(len(batch))), batch)
            if (taken := await _answer(channel, Taken)).count != len(batch):
                raise PeerError(f"it took {taken.count} descriptors of {len(batch)}")
        await _answer(channel, Resumed)

    def restore_output(self) -> None:
        """Put the supervisor's own stdout and stderr back in place of the pipes, so that logs outlive it."""
        descriptors.put_in_place(self.stdout, 1)
        descriptors.put_in_place(self.stderr, 2)

    def descriptors(self) -> list[int]:
        """What no child of the app's may hold open; -1 for what is closed already."""
        sockets = [listener for _, listener in self.listeners] + [self.queue.reader, self.queue.writer, *self.older]
        return [self.channel.fileno(), *(sock.fileno() for sock in sockets)]

    def close(self) -> None:
        self.channel.close()
        for _, listener in self.listeners:
            listener.close()
        self.queue.close()
        for reader in self.older:
            reader.close()


def take_over(path: str, nonce: str) -> Session:
    """Say hello and take the listeners. Blocks: no event loop runs yet, since what is to run comes only now.

    Raises:
        PeerError: the supervisor turned us away, or broke the protocol. Everything that was received is closed.
        OSError: it is gone.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        sock.settimeout(HELLO_DEADLINE)
        sock.connect(path)
        _check_owner(sock, path)
        descriptors.send(sock, handoff.encode(Hello(handoff.PROTOCOL, nonce)))
        welcome, output = _expect(sock, Welcome)
        undo.callback(descriptors.close, output)
        if welcome.protocol != handoff.PROTOCOL:
            raise PeerError(f"the supervisor speaks protocol {welcome.protocol}, this worker {handoff.PROTOCOL}")
        if len(output) not in (2, 3):
            raise PeerError(f"expected a stdout and a stderr with the welcome, got {len(output)} descriptors")
        figures = _share_figures(output.pop()) if len(output) > 2 else [0] * CELLS  # noqa: PLR2004 - stdout and stderr
        try:
            listeners, queue, older = _take_sockets(sock, undo)
        except PeerError as error:
            with contextlib.suppress(OSError):
                descriptors.send(sock, handoff.encode(BootFailed("listeners", str(error))))
            raise
        undo.pop_all()
    channel = Channel(sock, limit=handoff.MESSAGE_LIMIT, most=handoff.BATCH_LIMIT)
    return Session(path, nonce, channel, welcome, output[0], output[1], listeners, queue, older, figures)


def _share_figures(fd: int) -> Cells:
    """The cells in the supervisor's file, which is closed here; cells of our own if that is of no use."""
    try:
        cells = shared.cells(fd)
    except PeerError as error:
        logger.warning("what this worker counts is not seen: %s", error)
        return [0] * CELLS
    finally:
        os.close(fd)
    cells[OF_LAYOUT] = LAYOUT
    return cells


def _check_owner(sock: socket.socket, path: str) -> None:
    if peer.principal(sock).uid not in (0, os.geteuid()):
        raise PeerError(f"{path} is somebody else's; what it says is not done")


async def _answer(channel: Channel, kind: type[M]) -> M:
    packet, fds = await channel.receive()
    descriptors.close(fds)
    if not packet:
        raise PeerError("it hung up")
    return _understood(packet, kind)


def _understood(packet: bytes, kind: type[M]) -> M:
    message = handoff.decode_from_supervisor(packet)
    if isinstance(message, Refusal):
        raise PeerError(f"turned away by the supervisor: {message.message}")
    if not isinstance(message, kind):
        raise PeerError(f"expected {kind.__name__} of the supervisor, got {type(message).__name__}")
    return message


def _take_sockets(
    sock: socket.socket, undo: contextlib.ExitStack
) -> tuple[list[tuple[str, socket.socket]], AdoptionQueue, list[socket.socket]]:
    descriptors.send(sock, handoff.encode(Taken(0)))
    offer, stray = _expect(sock, Offer)
    descriptors.close(stray)
    descriptors.send(sock, handoff.encode(Taken(0)))
    listeners: list[tuple[str, socket.socket]] = []
    ends: list[int] = []
    undo.callback(descriptors.close, ends)
    left = len(offer.listeners) + len(offer.queue) + len(offer.older)
    older: list[socket.socket] = []
    while left:
        batch, fds = _expect(sock, Batch)
        if batch.count != len(fds) or not 0 < len(fds) <= left:
            descriptors.close(fds)
            raise PeerError(f"{batch.count} descriptors were announced, {len(fds)} came")
        left -= len(fds)
        while fds and len(listeners) < len(offer.listeners):
            info = offer.listeners[len(listeners)]
            try:
                listener = receive_listener(fds.pop(0), info)
            except PeerError:
                descriptors.close(fds)
                raise
            undo.callback(listener.close)
            listeners.append((info.name, listener))
        ends += fds
        if not left:
            queue = AdoptionQueue.receive((ends.pop(0), ends.pop(0)), offer.queue)
            undo.callback(queue.close)
            for said in offer.older:
                older.append(receive_end(ends.pop(0), said))
                undo.callback(older[-1].close)
        descriptors.send(sock, handoff.encode(Taken(batch.count)))
    return listeners, queue, older


def _expect(sock: socket.socket, kind: type[M]) -> tuple[M, list[int]]:
    packet, fds = descriptors.receive(sock, handoff.MESSAGE_LIMIT, handoff.BATCH_LIMIT)
    try:
        if not packet:
            raise PeerError("the supervisor hung up")
        return _understood(packet, kind), fds
    except PeerError:
        descriptors.close(fds)
        raise
