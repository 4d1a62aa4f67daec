"""The door for workers: ``handoff.sock``, who may come in, and the conversation with each."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from supervisor.core.commands import Spawn
from supervisor.core.crossing import Crossed
from supervisor.core.events import BecameReady, BeganServing, BootFailed, ChannelLost, Event, HelloSaid, Reported
from supervisor.core.model import Fleet
from supervisor.daemon.holder import Holder
from supervisor.errors import PeerError, Refused
from supervisor.host import descriptors, peer
from supervisor.host.channel import Channel
from supervisor.host.processes import Process
from supervisor.wire import handoff
from supervisor.wire.handoff import Batch, FromSupervisor, Hello, Offer, Refusal, Report, Serving, Taken, Welcome

logger = logging.getLogger("stillup")

M = TypeVar("M", Hello, Taken)

HELLO_DEADLINE: Final = 10.0
"""Seconds that whoever connects may take for each step until it is known as a worker with its listeners."""
MOST_STRANGERS: Final = 64
"""Connections that may be open before their hello; one more, and the one that has been silent longest goes."""


@dataclass(frozen=True)
class Expected:
    """A worker that may say hello: it was put on record before it was started."""

    spawn: Spawn
    process: asyncio.Future[Process]
    welcome: Callable[[], Welcome]


class HandoffDoor:
    """Accepts workers on a listening SOCK_SEQPACKET socket; owns it and every worker's channel."""

    def __init__(
        self,
        sock: socket.socket,
        holder: Holder,
        submit: Callable[[Event], None],
        ask: Callable[[Event], Awaitable[Fleet]],
    ) -> None:
        """Hand ``holder``'s listeners to workers; ``ask`` is for the hello, which the fleet may refuse."""
        self._sock = sock
        self._holder = holder
        self._submit = submit
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._expected: dict[str, Expected] = {}
        self._channels: dict[int, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: dict[Channel, None] = {}
        self._loop.add_reader(sock, self._accept)

    def expect(self, spawn: Spawn, process: asyncio.Future[Process], welcome: Callable[[], Welcome]) -> str:
        """Put a worker on record; the nonce that it has to say."""
        nonce = secrets.token_hex(16)
        self._expected[nonce] = Expected(spawn, process, welcome)
        return nonce

    def forget(self, serial: int) -> None:
        """The worker's process has ended."""
        self._expected = {nonce: e for nonce, e in self._expected.items() if e.spawn.serial != serial}
        channel = self._channels.pop(serial, None)
        if channel is not None:
            self._hear_out(serial, channel)
            channel.close()

    def _hear_out(self, serial: int, channel: Channel) -> None:
        """Take what a worker said last: its end may be seen before that was read."""
        try:
            while self._understand(serial, *channel.receive_now()):
                pass
        except (PeerError, OSError) as error:  # no more of it, or nothing that could still matter
            logger.debug("last words of worker %s: %s", serial, error)

    def tell(self, serial: int, message: FromSupervisor) -> bool:
        """Send a worker a word; False when it cannot be reached."""
        channel = self._channels.get(serial)
        if channel is None:
            return False
        try:
            channel.send_now(handoff.encode(message))
        except OSError as error:
            logger.debug("worker %s cannot be told: %s", serial, error)
            return False
        return True

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._tasks:
            task.cancel()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Nothing can be accepted now; without the pause the loop would spin on it.
            logger.error("cannot accept a worker: %s", error.strerror)  # noqa: TRY400 - no bug
            self._loop.remove_reader(self._sock)
            self._loop.call_later(0.5, self._resume)
            return
        if len(self._strangers) >= MOST_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.close()
        channel = Channel(connection, limit=handoff.MESSAGE_LIMIT, most=handoff.BATCH_LIMIT)
        self._strangers[channel] = None
        task = self._loop.create_task(self._receive(connection, channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    async def _receive(self, connection: socket.socket, channel: Channel) -> None:
        """One connection, from its first packet to its last."""
        try:
            serial = await self._admit(connection, channel)
        except (PeerError, Refused, TimeoutError, OSError) as error:
            why = str(error) or "said nothing in time"
            logger.warning("handoff.sock: %s refused: %s", _who(connection), why)
            _turn_away(channel, why)
            return
        finally:
            self._strangers.pop(channel, None)
        try:
            await self._hand_over(serial, channel)
            await self._listen(serial, channel)
        except _GaveUpError as error:
            self._submit(BootFailed(serial, error.said.stage, error.said.message))
        except (PeerError, TimeoutError) as error:
            message = f"broke the hand-off protocol: {error or 'no answer in time'}"
            logger.warning("worker %s %s", serial, message)
            self._submit(ChannelLost(serial, message))
        except OSError as error:
            logger.debug("channel of worker %s: %s", serial, error)
        finally:
            # Its process's end is seen by its pidfd; the end of the channel alone says nothing more.
            channel.close()

    async def _admit(self, connection: socket.socket, channel: Channel) -> int:
        """Hear the hello and check who says it; the worker's serial."""
        async with asyncio.timeout(HELLO_DEADLINE):
            hello = await _hear(channel, Hello)
            expected = self._expected.get(hello.nonce)
            if expected is None:
                raise PeerError("no worker with that nonce is expected")
            # The record is older than the process: the worker may say hello before spawn() has returned here.
            process = await asyncio.shield(expected.process)
            if not peer.is_process(connection, process.pidfd, process.pid):
                raise PeerError(f"the nonce is that of pid {process.pid}")
            if hello.protocol not in handoff.SPOKEN:
                raise PeerError(f"it speaks protocol {hello.protocol}, this supervisor {handoff.PROTOCOL}")
            if self._expected.pop(hello.nonce, None) is None:
                raise PeerError("it has said hello already")
            serial = expected.spawn.serial
            await self._ask(HelloSaid(serial))
        self._channels[serial] = channel
        packet = handoff.encode(expected.welcome())
        await channel.send(packet, [1, 2])
        return serial

    async def _hand_over(self, serial: int, channel: Channel) -> None:
        """Count and descriptions first, then the descriptors, each step answered before the next."""
        async with asyncio.timeout(HELLO_DEADLINE):
            await _hear_taken(channel, 0)
            await channel.send(handoff.encode(Offer(list(self._holder.infos), self._holder.cookies)))
            await _hear_taken(channel, 0)
            for batch in self._holder.batches():
                await channel.send(handoff.encode(Batch(len(batch))), batch)
                await _hear_taken(channel, len(batch))
        logger.debug("worker %s holds %d listeners", serial, len(self._holder.infos))

    async def _listen(self, serial: int, channel: Channel) -> None:
        while True:
            packet, fds = await channel.receive()
            if not self._understand(serial, packet, fds):
                return

    def _understand(self, serial: int, packet: bytes, fds: list[int]) -> bool:
        """Pass on what a worker said; False when it has hung up.

        Raises:
            PeerError: it is not what a worker says that has its listeners.
        """
        descriptors.close(fds)
        if fds:
            raise PeerError("it sent descriptors")
        if not packet:
            return False
        match handoff.decode_from_worker(packet):
            case handoff.BootFailed(stage, message):
                self._submit(BootFailed(serial, stage, message))
            case handoff.Ready(probe):
                self._submit(BecameReady(serial, probe))
            case Serving():
                self._submit(BeganServing(serial))
            case Report(connections, requests, worn, oldest, given, adopted, lost, closed, longest):
                crossed = Crossed(given, adopted, lost, closed, longest)
                self._submit(Reported(serial, connections, requests, worn, oldest, crossed))
            case Hello() | Taken() as message:
                raise PeerError(f"it said {type(message).__name__} out of turn")
        return True


class _GaveUpError(PeerError):
    """A worker says in the middle of the hand-off that it cannot serve."""

    def __init__(self, said: handoff.BootFailed) -> None:
        super().__init__(f"{said.stage}: {said.message}")
        self.said = said


async def _hear(channel: Channel, kind: type[M]) -> M:
    packet, fds = await channel.receive()
    descriptors.close(fds)
    if not packet:
        raise PeerError("it hung up")
    if fds:
        raise PeerError("it sent descriptors")
    message = handoff.decode_from_worker(packet)
    if isinstance(message, handoff.BootFailed):
        raise _GaveUpError(message)
    if not isinstance(message, kind):
        raise PeerError(f"it said {type(message).__name__}, not {kind.__name__}")
    return message


async def _hear_taken(channel: Channel, count: int) -> None:
    taken = await _hear(channel, Taken)
    if taken.count != count:
        raise PeerError(f"it took {taken.count} descriptors of {count}")


def _turn_away(channel: Channel, why: str) -> None:
    try:
        channel.send_now(handoff.encode(Refusal(why)))
    except OSError as error:
        logger.debug("nobody left to refuse: %s", error)
    channel.close()


def _who(connection: socket.socket) -> str:
    return str(peer.principal(connection)) if connection.fileno() >= 0 else "somebody"
