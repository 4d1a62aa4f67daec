"""The door for workers: ``handoff.sock``, who may come in, and the conversation with each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from supervisor.core.commands import Spawn
from supervisor.core.crossing import Crossed
from supervisor.core.events import (
    BecameReady,
    BeganServing,
    BootFailed,
    ChannelLost,
    Event,
    HelloSaid,
    Reported,
    Resumed,
)
from supervisor.core.model import Fleet
from supervisor.daemon.holder import Holder
from supervisor.errors import PeerError, Refused
from supervisor.host import descriptors, peer
from supervisor.host.adoption import AdoptionQueue
from supervisor.host.channel import Channel, Tap
from supervisor.host.processes import Process, hold
from supervisor.host.sockets import Listener, receive_listener
from supervisor.wire import handoff
from supervisor.wire.handoff import (
    Batch,
    FromSupervisor,
    Hello,
    Offer,
    Refusal,
    Report,
    Resume,
    Return,
    Serving,
    Taken,
    Welcome,
)

logger = logging.getLogger("stillup")

M = TypeVar("M", Taken, Batch)

HELLO_DEADLINE: Final = 10.0
"""Seconds that whoever connects may take for each step until it is known as a worker with its listeners."""
MOST_UNREAD: Final = 4096
"""Messages that are read of one worker in one go: more than its channel holds, and not what it sends for ever."""
MOST_STRANGERS: Final = 64
"""Connections that may be open before it is known who they are; one more, and the oldest of them goes."""


@dataclass(frozen=True)
class Expected:
    """A worker that may say hello: it was put on record before it was started."""

    spawn: Spawn
    process: asyncio.Future[Process]
    welcome: Callable[[], Welcome]


@dataclass(frozen=True)
class Known:
    """A worker that may come back: it said hello here, or is one of a supervisor before this one."""

    serial: int
    process: Process


@dataclass(frozen=True)
class Claimant:
    """A worker that is on no record, and says what it runs. Whoever takes it in owns the process."""

    process: Process
    said: Resume


class HandoffDoor:
    """Accepts workers on a listening SOCK_SEQPACKET socket; owns it and every worker's channel."""

    def __init__(
        self,
        sock: socket.socket,
        holder: Holder,
        submit: Callable[[Event], None],
        ask: Callable[[Event], Awaitable[Fleet]],
        tap: Tap | None = None,
        *,
        worker_uid: int | None = None,
        figures: Callable[[int], list[int]] = lambda _: [],
    ) -> None:
        """Hand ``holder``'s listeners to workers, who are of ``worker_uid`` or our own user.

        ``ask`` is for the hello, which the fleet may refuse. ``figures`` has the descriptor of the file in which the
        worker of that serial is to count, if there is one.
        """
        self._tap = tap or Tap()
        self._figures = figures
        self._sock = sock
        self._holder = holder
        self._submit = submit
        self._ask = ask
        self._uids = {os.geteuid(), os.geteuid() if worker_uid is None else worker_uid}
        self._loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()
        """Set when somebody has come back."""
        self._expected: dict[str, Expected] = {}
        self._catching_up = False
        self._known: dict[str, Known] = {}
        self.claim: Callable[[Claimant], None] | None = None
        """Takes in workers that no record knows; None while none are."""
        self.spoken: set[int] = set()
        """The serials of those known that have come back."""
        self.admits = asyncio.Event()
        """Set once the fleet is known: until then those who come back give their copies, and wait."""
        self._channels: dict[int, Channel] = {}
        self._protocols: dict[int, int] = {}
        """What those speak who said hello here; who comes back speaks ours."""
        self._speaking: dict[int, Channel] = {}
        """The channels of those that have their listeners."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: dict[Channel, None] = {}
        self._loop.add_reader(sock, self._accept)

    def expect(
        self, nonce: str, spawn: Spawn, process: asyncio.Future[Process], welcome: Callable[[], Welcome]
    ) -> None:
        """Let a worker in that is about to be started, by its nonce."""
        self._expected[nonce] = Expected(spawn, process, welcome)

    def know(self, nonce: str, serial: int, process: Process) -> None:
        """Let a worker in that comes back, by its nonce."""
        self._known[nonce] = Known(serial, process)

    def forget(self, serial: int) -> None:
        """The worker's process has ended."""
        self._expected = {nonce: e for nonce, e in self._expected.items() if e.spawn.serial != serial}
        self._known = {nonce: known for nonce, known in self._known.items() if known.serial != serial}
        self._speaking.pop(serial, None)
        self._protocols.pop(serial, None)
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

    def catch_up(self, besides: int | None = None) -> None:
        """Pass on all that workers have said and that lies unread, so that nobody's silence is our own.

        Args:
            besides: the serial of a worker whose words wait, since one of them is being passed on.
        """
        if self._catching_up:
            return
        self._catching_up = True
        try:
            for serial, channel in tuple(self._speaking.items()):
                if serial != besides:
                    self._read_out(serial, channel)
        finally:
            self._catching_up = False

    def _read_out(self, serial: int, channel: Channel) -> None:
        try:
            for _ in range(MOST_UNREAD):
                if not self._understand(serial, *channel.receive_now()):
                    break
        except PeerError as error:
            self._cut_off(serial, channel, error)
        except OSError as error:  # most often BlockingIOError: that was all
            logger.debug("nothing more of worker %s: %s", serial, error)

    def _cut_off(self, serial: int, channel: Channel, error: PeerError | TimeoutError) -> None:
        message = f"broke the hand-off protocol: {error or 'no answer in time'}"
        logger.warning("worker %s %s", serial, message)
        self._submit(ChannelLost(serial, message))
        self._speaking.pop(serial, None)
        channel.close()

    def tell(self, serial: int, message: FromSupervisor) -> bool:
        """Send a worker a word; False when it cannot be reached."""
        channel = self._channels.get(serial)
        if channel is None:
            return False
        try:
            spoken = self._protocols.get(serial, handoff.PROTOCOL)
            channel.send_now(handoff.encode(handoff.for_version(message, spoken)))
        except OSError as error:
            logger.debug("worker %s cannot be told: %s", serial, error)
            return False
        return True

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._tasks:
            task.cancel()
        # A task that is cancelled before its first step has no way to close what it was for.
        for channel in (*self._strangers, *self._channels.values()):
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
            self._give_up(f"it cannot be let in: {error.strerror}")
            self._loop.remove_reader(self._sock)
            self._loop.call_later(0.5, self._resume)
            return
        if len(self._strangers) >= MOST_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.close()
        channel = Channel(connection, limit=handoff.MESSAGE_LIMIT, most=handoff.BATCH_LIMIT, tap=self._tap)
        self._strangers[channel] = None
        task = self._loop.create_task(self._receive(connection, channel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _give_up(self, why: str) -> None:
        """Whoever waits outside, or is on its way, would wait for its deadline, and who asked would not hear why."""
        for expected in self._expected.values():
            self._submit(BootFailed(expected.spawn.serial, "hello", why))

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    async def _receive(self, connection: socket.socket, channel: Channel) -> None:
        """One connection, from its first packet to its last."""
        try:
            await self._converse(connection, channel)
        finally:
            # Its process's end is seen by its pidfd; the end of the channel alone says nothing more.
            channel.close()

    async def _converse(self, connection: socket.socket, channel: Channel) -> None:
        try:
            serial, protocol = await self._admit(connection, channel)
        except (PeerError, Refused, TimeoutError, OSError) as error:
            why = str(error) or "said nothing in time"
            logger.warning("handoff.sock: %s refused: %s", _who(connection), why)
            _turn_away(channel, why)
            return
        finally:
            self._strangers.pop(channel, None)
        try:
            if protocol:
                await self._hand_over(serial, channel, protocol)
            await self._listen(serial, channel)
        except _GaveUpError as error:
            self._submit(BootFailed(serial, error.said.stage, error.said.message))
        except Refused as refusal:
            self._submit(BootFailed(serial, "listeners", str(refusal)))
        except (PeerError, TimeoutError) as error:
            self._cut_off(serial, channel, error)
        except OSError as error:
            logger.debug("channel of worker %s: %s", serial, error)
        finally:
            if self._speaking.get(serial) is channel:  # it may have come back by another
                del self._speaking[serial]

    async def _admit(self, connection: socket.socket, channel: Channel) -> tuple[int, int]:
        """Hear who it is and check that; the worker's serial, and the protocol in which it is to have everything.

        0 if it has everything already.
        """
        async with asyncio.timeout(HELLO_DEADLINE):
            packet, fds = await channel.receive()
            descriptors.close(fds)
            if not packet or fds:
                raise PeerError("it sent descriptors" if fds else "it hung up")
            match handoff.decode_from_worker(packet):
                case Hello() as hello:
                    return await self._greet(connection, channel, hello), hello.protocol
                case Resume() as resume:
                    await self._take_back(connection, channel, resume)
                case message:
                    raise PeerError(f"it said {type(message).__name__}, not Hello")
        # From here on it may take longer: a supervisor that has just been started has the others to hear first.
        self._strangers.pop(channel, None)
        return await self._resumed(channel, resume), 0

    async def _greet(self, connection: socket.socket, channel: Channel, hello: Hello) -> int:
        expected = self._expected.get(hello.nonce)
        if expected is None:
            raise PeerError("no worker with that nonce is expected")
        # It is expected before its process is there: the worker may say hello before spawn() has returned here.
        process = await asyncio.shield(expected.process)
        if not peer.is_process(connection, process.pidfd, process.pid):
            raise PeerError(f"the nonce is that of pid {process.pid}")
        _check_protocol(hello.protocol)
        if self._expected.pop(hello.nonce, None) is None:
            raise PeerError("it has said hello already")
        serial = expected.spawn.serial
        await self._ask(HelloSaid(serial, comes_back=hello.protocol >= handoff.COMES_BACK))
        self._channels[serial] = channel
        self._known[hello.nonce] = Known(serial, process)
        self._protocols[serial] = hello.protocol
        welcome = handoff.for_version(expected.welcome(), hello.protocol)
        fds = [1, 2, *(self._figures(serial) if hello.protocol == handoff.PROTOCOL else ())]
        await channel.send(handoff.encode(welcome), fds)
        return serial

    async def _take_back(self, connection: socket.socket, channel: Channel, resume: Resume) -> None:
        """Check who comes back, and take copies of what it holds into custody."""
        _check_protocol(resume.protocol)
        known = self._known.get(resume.nonce)
        with contextlib.ExitStack() as undo:
            if known is not None:
                who: Known | Claimant = known
            elif self.claim is not None:
                caller = peer.principal(connection)
                if caller.uid not in self._uids:
                    raise PeerError(f"it is on no record, and of uid {caller.uid}")
                process = hold(caller.pid)
                undo.callback(process.close)
                who = Claimant(process, resume)
            else:
                raise PeerError("it is not on record")
            if not peer.is_process(connection, who.process.pidfd, who.process.pid):
                raise PeerError(f"the nonce is that of pid {who.process.pid}")
            await channel.send(handoff.encode(Return()))
            await self._receive_copies(channel, resume)
            await channel.send(handoff.encode(handoff.Resumed()))
            undo.pop_all()
        if isinstance(who, Known):
            self.spoken.add(who.serial)
            self.changed.set()
        elif self.claim is not None:
            self.claim(who)
        else:
            who.process.close()
            raise PeerError("it came too late to be taken in")

    async def _resumed(self, channel: Channel, resume: Resume) -> int:
        await self.admits.wait()
        known = self._known.get(resume.nonce)
        if known is None:
            raise PeerError("it is no worker of this service")
        serial = known.serial
        before = self._channels.get(serial)
        if before is not None:
            before.close()
        self._channels[serial] = channel
        try:
            await self._ask(Resumed(serial, resume.draining))
        except Refused:
            if self._channels.get(serial) is channel:
                del self._channels[serial]
            raise
        return serial

    async def _receive_copies(self, channel: Channel, resume: Resume) -> None:
        """Take each descriptor for what it was said to be; all are in custody, or closed."""
        fds: list[int] = []
        with contextlib.ExitStack() as undo:
            undo.callback(lambda: descriptors.close(fds))
            left = len(resume.listeners) + len(resume.queue or ())
            while left:
                batch, came = await _hear(channel, Batch)
                fds += came
                if batch.count != len(came) or not 0 < len(came) <= left:
                    raise PeerError(f"it announced {batch.count} descriptors, {len(came)} came")
                left -= len(came)
                await channel.send(handoff.encode(Taken(len(came))))
            listeners: list[Listener] = []
            for info in resume.listeners:
                listener = Listener(info.name, receive_listener(fds.pop(0), info))
                undo.callback(listener.socket.close)
                listeners.append(listener)
            ends = tuple(fds)
            fds.clear()
            queue = AdoptionQueue.receive(ends, resume.queue) if resume.queue is not None else None
            undo.pop_all()
        self._holder.take_back(listeners, queue)

    async def _hand_over(self, serial: int, channel: Channel, protocol: int) -> None:
        """Count and descriptions first, then the descriptors, each step answered before the next."""
        older = protocol == handoff.PROTOCOL
        async with asyncio.timeout(HELLO_DEADLINE):
            await _hear_taken(channel, 0)
            offer = Offer(list(self._holder.infos), self._holder.cookies, self._holder.older if older else [])
            await channel.send(handoff.encode(offer))
            await _hear_taken(channel, 0)
            for batch in self._holder.batches(older=older):
                await channel.send(handoff.encode(Batch(len(batch))), batch)
                await _hear_taken(channel, len(batch))
        logger.debug("worker %s holds %d listeners", serial, len(self._holder.infos))

    async def _listen(self, serial: int, channel: Channel) -> None:
        self._speaking[serial] = channel
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
                # It may take the place of one that hangs. What that one has said meanwhile counts, and comes first.
                self.catch_up(besides=serial)
                self._submit(BeganServing(serial))
            case Report(connections, requests, worn, oldest, given, adopted, lost, closed, longest):
                crossed = Crossed(given, adopted, lost, closed, longest)
                self._submit(Reported(serial, connections, requests, worn, oldest, crossed))
            case message:
                raise PeerError(f"it said {type(message).__name__} out of turn")
        return True


class _GaveUpError(PeerError):
    """A worker says in the middle of the hand-off that it cannot serve."""

    def __init__(self, said: handoff.BootFailed) -> None:
        super().__init__(f"{said.stage}: {said.message}")
        self.said = said


async def _hear(channel: Channel, kind: type[M]) -> tuple[M, list[int]]:
    """The next word; what came beside it is the caller's to close."""
    packet, fds = await channel.receive()
    try:
        if not packet:
            raise PeerError("it hung up")
        message = handoff.decode_from_worker(packet)
        if isinstance(message, handoff.BootFailed):
            raise _GaveUpError(message)
        if not isinstance(message, kind):
            raise PeerError(f"it said {type(message).__name__}, not {kind.__name__}")
    except PeerError:
        descriptors.close(fds)
        raise
    return message, fds


async def _hear_taken(channel: Channel, count: int) -> None:
    taken, fds = await _hear(channel, Taken)
    descriptors.close(fds)
    if fds:
        raise PeerError("it sent descriptors")
    if taken.count != count:
        raise PeerError(f"it took {taken.count} descriptors of {count}")


def _check_protocol(protocol: int) -> None:
    if protocol not in handoff.SPOKEN:
        raise PeerError(f"it speaks protocol {protocol}, this supervisor {handoff.PROTOCOL}")


def _turn_away(channel: Channel, why: str) -> None:
    try:
        channel.send_now(handoff.encode(Refusal(why)))
    except OSError as error:
        logger.debug("nobody left to refuse: %s", error)


def _who(connection: socket.socket) -> str:
    return str(peer.principal(connection)) if connection.fileno() >= 0 else "somebody"
