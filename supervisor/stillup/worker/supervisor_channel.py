"""The worker's side of the hand-off channel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TypeVar

import msgspec

from stillup.core.amounts import amount
from stillup.errors import PeerError
from stillup.host import descriptors, peer, shared_cells
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.channel import Channel, connect_soon, connect_within
from stillup.host.descriptor_exchange import (
    Dialogue,
    accept_offer,
    converse,
    converse_blocking,
    expect_blocking,
    in_batches,
    return_copies,
)
from stillup.host.sockets import describe
from stillup.wire import handoff_messages
from stillup.wire.figure_cells import CELLS, LAYOUT, OF_LAYOUT, Cells
from stillup.wire.handoff_messages import (
    BootFailed,
    FromSupervisor,
    FromWorker,
    Hello,
    Lead,
    Refusal,
    Reopened,
    Resume,
    Welcome,
)

logger = logging.getLogger("uvicorn.error")

M = TypeVar("M", bound=FromSupervisor)

_OUTPUT = ("stdout", "stderr")
HELLO_DEADLINE = 30.0
"""Seconds that the supervisor may take for each step of the hand-off."""


class TurnedAwayError(PeerError):
    """A supervisor has refused this worker."""


class SupervisorChannel(msgspec.Struct):
    """A worker's channel, who it is, and the descriptors that it was handed. Owns all of them."""

    path: str
    """Of ``handoff.sock``."""
    nonce: str
    channel: Channel
    welcome: Welcome
    stdout: int
    stderr: int
    """From READY on; then -1, since 1 and 2 are these."""
    listeners: list[tuple[str, socket.socket]]
    queue: AdoptionQueue
    older: list[socket.socket] = msgspec.field(default_factory=list)
    """Reading ends of other queues, into which workers of other supervisors may still put connections."""
    figures: Cells = msgspec.field(default_factory=lambda: [0] * CELLS)
    """Where this worker counts (``wire.figure_cells``); seen by nobody else unless the supervisor has given memory."""
    figures_fd: int = -1
    """Of that memory, for the next supervisor; -1 without one."""
    leader_lock: int = -1
    """What came with the last order to lead; -1 once it was given up."""
    turned_away: bool = False
    """Whether the last supervisor that was asked to take this worker back knows it not, or not now."""

    async def say(self, message: FromWorker) -> None:
        """Tell the supervisor.

        Raises:
            OSError: it is gone.
        """
        await self.channel.send(handoff_messages.encode(message))

    def say_now(self, message: FromWorker) -> None:
        """Tell the supervisor before a loop runs, or from where nothing may wait; if it is gone, it is not told."""
        with contextlib.suppress(OSError):
            self.channel.send_now(handoff_messages.encode(message))

    async def tell(self, message: FromWorker) -> None:
        """Tell the supervisor; one that is gone is noticed where it is listened to."""
        with contextlib.suppress(OSError):
            await self.say(message)

    async def hear(self) -> FromSupervisor | None:
        """The supervisor's next word, or None when it has hung up or died.

        Raises:
            PeerError: it is no word of the protocol.
        """
        while True:
            try:
                packet, fds = await self.channel.receive()
            except OSError:
                return None
            with contextlib.ExitStack() as stack:
                stack.callback(descriptors.close, fds)
                message = handoff_messages.decode_from_supervisor(packet) if packet else None
                if not isinstance(message, Reopened | Lead):
                    return message
                if len(fds) != (1 if isinstance(message, Lead) else len(_OUTPUT)):
                    what = "a lock" if isinstance(message, Lead) else "a stdout and a stderr"
                    raise PeerError(f"expected {what}, got {amount(len(fds), 'descriptor')}")
                stack.pop_all()
            if isinstance(message, Lead):
                # Before it is taken: the end of any copy in this process is that of the lock (fcntl_locking(2)).
                self.give_up_lock()
                self.leader_lock = fds[0]
                return message
            self._take_output(*fds)

    def give_up_lock(self) -> None:
        """Let another process take the leader's lock."""
        if self.leader_lock >= 0:
            os.close(self.leader_lock)
            self.leader_lock = -1

    async def resume(self, *, draining: bool, leads: bool = False, paused: bool = False) -> bool:
        """Go to whoever listens now, and give copies of what is held; whether that is our supervisor from here on.

        Args:
            draining: what the worker does; else it serves.
            leads: whether it was told to lead, and has not let go.
            paused: whether it is paused, and does neither.
        """
        self.turned_away = False
        self.channel.close()
        with contextlib.ExitStack() as undo:
            try:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
                channel = Channel(sock, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
                undo.callback(channel.close)
                await connect_soon(sock, self.path)
                _check_owner(sock, self.path)
                async with asyncio.timeout(HELLO_DEADLINE):
                    await converse(channel, _understand, self._copies(draining=draining, leads=leads, paused=paused))
            except (OSError, PeerError) as error:  # a TimeoutError is an OSError
                self.turned_away = isinstance(error, TurnedAwayError)
                logger.debug("no supervisor takes this worker back: %s", error or "no answer in time")
                return False
            undo.pop_all()
        self.channel = channel
        return True

    def _copies(self, *, draining: bool, leads: bool, paused: bool) -> Dialogue[None]:
        """Give copies of what is still held."""
        held = [(name, listener) for name, listener in self.listeners if listener.fileno() >= 0]
        ends = [self.queue.reader, self.queue.writer]
        whole = all(end.fileno() >= 0 for end in ends)
        infos = [describe(name, listener) for name, listener in held]
        cookies = self.queue.cookies if whole else None
        resume = Resume(handoff_messages.PROTOCOL, self.nonce, draining, self.welcome, infos, cookies, leads, paused)
        sockets = [listener for _, listener in held] + (ends if whole else [])
        figures = [self.figures_fd] if self.figures_fd >= 0 else []
        return return_copies(resume, in_batches([sock.fileno() for sock in sockets]), figures)

    def _take_output(self, stdout: int, stderr: int) -> None:
        """The supervisor's stdout and stderr are these now."""
        if self.stdout < 0:
            descriptors.put_in_place(stdout, 1)
            descriptors.put_in_place(stderr, 2)
        else:
            descriptors.close([self.stdout, self.stderr])
            self.stdout, self.stderr = stdout, stderr

    def outputs(self) -> tuple[int, int] | None:
        """Where stdout and stderr will lead; None once they do."""
        return None if self.stdout < 0 else (self.stdout, self.stderr)

    def restore_output(self) -> None:
        """Put the supervisor's own stdout and stderr back in place of the pipes, so that logs outlive it."""
        descriptors.put_in_place(self.stdout, 1)
        descriptors.put_in_place(self.stderr, 2)
        self.stdout = self.stderr = -1

    def descriptors(self) -> list[int]:
        """What no child of the app's may hold open; -1 for what is closed already."""
        sockets = [listener for _, listener in self.listeners] + [self.queue.reader, self.queue.writer, *self.older]
        return [self.channel.fileno(), self.figures_fd, self.leader_lock, *(sock.fileno() for sock in sockets)]

    def close(self) -> None:
        self.channel.close()
        self.let_go()

    def let_go(self) -> None:
        """Close all but the channel: there may be something left to say."""
        for _, listener in self.listeners:
            listener.close()
        self.queue.close()
        for reader in self.older:
            reader.close()
        descriptors.close([self.figures_fd] if self.figures_fd >= 0 else [])
        self.give_up_lock()


def take_over(path: str, nonce: str) -> SupervisorChannel:
    """Say hello and take the listeners. Blocks: no event loop runs yet, since what is to run comes only now.

    Raises:
        PeerError: the supervisor turned us away, or broke the protocol. Everything that was received is closed.
        OSError: it is gone.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        connect_within(sock, path, HELLO_DEADLINE)
        sock.settimeout(HELLO_DEADLINE)
        _check_owner(sock, path)
        descriptors.send(sock, handoff_messages.encode(Hello(handoff_messages.PROTOCOL, nonce)))
        welcome, output = expect_blocking(sock, _understand, Welcome)
        undo.callback(descriptors.close, output)
        if welcome.protocol != handoff_messages.PROTOCOL:
            raise PeerError(
                f"the supervisor speaks protocol {welcome.protocol}, this worker {handoff_messages.PROTOCOL}"
            )
        if len(output) not in (2, 3):
            raise PeerError(f"expected a stdout and a stderr with the welcome, got {amount(len(output), 'descriptor')}")
        figures, figures_fd = _share_figures(output[2:])
        del output[2:]
        undo.callback(descriptors.close, [figures_fd])
        try:
            received = converse_blocking(sock, _understand, accept_offer())
        except PeerError as error:
            with contextlib.suppress(OSError):
                descriptors.send(sock, handoff_messages.encode(BootFailed("listeners", str(error))))
            raise
        undo.pop_all()
    channel = Channel(sock, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
    listeners = [(listener.name, listener.socket) for listener in received.listeners]
    assert received.queue is not None  # noqa: S101 - for the type checker: every offer has one
    return SupervisorChannel(
        path,
        nonce,
        channel,
        welcome,
        output[0],
        output[1],
        listeners,
        received.queue,
        received.older,
        figures,
        figures_fd,
    )


def _share_figures(fds: list[int]) -> tuple[Cells, int]:
    """The cells in the supervisor's memory, and its descriptor; of no use, it is closed, and the cells are our own."""
    for fd in fds:
        try:
            cells = shared_cells.cells(fd)
        except PeerError as error:
            logger.warning("what this worker counts is not seen: %s", error)
            os.close(fd)
            continue
        cells[OF_LAYOUT] = LAYOUT
        return cells, fd
    return [0] * CELLS, -1


def _check_owner(sock: socket.socket, path: str) -> None:
    if peer.principal(sock).uid not in (0, os.geteuid()):
        raise PeerError(f"{path} is somebody else's; what it says is not done")


def _understand(packet: bytes, kind: type[M]) -> M:
    if not packet:
        raise PeerError("the supervisor hung up")
    message = handoff_messages.decode_from_supervisor(packet)
    if isinstance(message, Refusal):
        raise TurnedAwayError(f"turned away by the supervisor: {message.message}")
    if not isinstance(message, kind):
        raise PeerError(f"expected {kind.__name__} of the supervisor, got {type(message).__name__}")
    return message
