"""Admission: who may come in at ``handoff.sock``, and what is handed over until a worker has its listeners.

1. A new worker is expected by a nonce before it is started, says Hello, and is given copies of what is in custody.
2. A worker that lost its supervisor says Resume, and gives copies of what it holds into custody. It is known by the
   nonce of its hello, or from the record; while ``claim`` is set one that is on no record is taken in, too.
3. Who connects is authenticated by the kernel (``host.peer``): it must be the process that is meant by its nonce.
4. A connection is unidentified until then, with a deadline a step (``unidentified_connections``).

What is said afterwards is the business of ``worker_channels``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import msgspec

from stillup.core.amounts import amount
from stillup.core.commands import Spawn
from stillup.core.events import Event, HelloSaid, WorkerBootFailed, WorkerResumed
from stillup.core.model import Fleet
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.log_ratelimit import LogRatelimit
from stillup.daemon.workers.unidentified_connections import MOST_A_TURN, PAUSE, SHORT_PAUSE, UnidentifiedConnections
from stillup.daemon.workers.worker_answers import GaveUpError, check_claim, check_protocol, understand
from stillup.daemon.workers.worker_channels import WorkerChannels
from stillup.errors import PeerError, Refused
from stillup.host import peer
from stillup.host.blocking_close import close_in_thread, close_socket_in_thread, hang_up
from stillup.host.channel import Channel, Tap
from stillup.host.descriptor_exchange import converse, offer_sockets, take_copies
from stillup.host.processes import Process, hold
from stillup.wire import handoff_messages, protocol_versions, worker_words
from stillup.wire.handoff_messages import FromWorker, Hello, Offer, Refusal, Resume, Welcome

logger = logging.getLogger("stillup.handoff")
logger.addFilter(LogRatelimit())

M = TypeVar("M", bound=FromWorker)

HELLO_DEADLINE: Final = 10.0
"""Seconds for each step of a connection until it is a worker's that has its listeners."""

NOTHING_TO_BE_HAD: Final = 0.5
"""Seconds without accepting when accept(2) fails, as it does without descriptors."""


class Expected(msgspec.Struct, frozen=True):
    """A worker that may say hello: it was put on record before it was started."""

    spawn: Spawn
    process: asyncio.Future[Process]
    welcome: Callable[[], Welcome]


class Known(msgspec.Struct, frozen=True):
    """A worker that may come back: it said hello here, or is one of a supervisor before this one."""

    serial: int
    process: Process
    was_given: bool = False
    """Whether it was given our adoption queue, and so has no other."""


class Claimant(msgspec.Struct, frozen=True):
    """A worker that is on no record, and says what it runs. The process belongs to who takes the value."""

    process: Process
    said: Resume


class Admission:
    """Accepts workers on a listening SOCK_SEQPACKET socket; owns it, and each connection until its task ends."""

    def __init__(
        self,
        sock: socket.socket,
        custody: Custody,
        channels: WorkerChannels,
        submit: Callable[[Event], None],
        ask: Callable[[Event], Awaitable[Fleet]],
        *,
        tap: Tap | None = None,
        worker_uid: int | None = None,
        figures: Callable[[int], list[int]] = lambda _: [],
        figures_back: Callable[[Process, int], None] = lambda _, fd: os.close(fd),
    ) -> None:
        """Hand ``custody``'s listeners to workers, and then their connections to ``channels``.

        Args:
            sock: non-blocking.
            custody: has the listeners, or gets them back.
            channels: of the workers that were let in.
            submit: takes what fails on the way.
            ask: takes hello and resume, which the fleet may refuse.
            tap: sees every packet.
            worker_uid: whose workers are let in besides our own user's.
            figures: the descriptor of the memory in which the worker of that serial counts, if there is any.
            figures_back: takes the descriptor of the memory in which a worker that comes back says it counts.
        """
        self._tap = tap or Tap()
        self._figures = figures
        self._figures_back = figures_back
        self._sock = sock
        self._custody = custody
        self._channels = channels
        self._submit = submit
        self._ask = ask
        self._uids = {os.geteuid(), os.geteuid() if worker_uid is None else worker_uid}
        self._loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()
        """Set when somebody has come back."""
        self._expected: dict[str, Expected] = {}
        self._known: dict[str, Known] = {}
        self._greeted: set[int] = set()
        """By serial, who has said hello, and lives."""
        self.claim: Callable[[Claimant], None] | None = None
        """Takes in workers that no record knows; None while none are."""
        self.spoken: set[int] = set()
        """The serials of those known that have come back."""
        self.admits = asyncio.Event()
        """Set once the fleet is known: until then those who come back give their copies, and wait."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._unidentified = UnidentifiedConnections()
        self._coming_back: dict[int, Channel] = {}
        """By pid, on which channel it comes back."""
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
        self._greeted.discard(serial)
        self._channels.forget(serial)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        close_socket_in_thread(self._sock)
        for task in self._tasks:
            task.cancel()
        # A task that is cancelled before its first step has no way to close what it was for.
        self._unidentified.close()
        self._channels.close()

    def _accept(self) -> None:
        ours = {known.process.pid for known in self._known.values()}
        ours |= {one.process.result().pid for one in self._expected.values() if _is_there(one.process)}
        # One that is expected may connect before its pid is known here.
        may_be_expected = self.claim is not None or not all(_is_there(one.process) for one in self._expected.values())
        strangers = 0
        for _ in range(MOST_A_TURN):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError as error:
                # Nothing can be accepted now; without the pause the loop would spin on it.
                logger.error("cannot accept a worker: %s", error.strerror)  # noqa: TRY400 - no bug
                self._give_up(f"it cannot be let in: {error.strerror}")
                self._pause(NOTHING_TO_BE_HAD)
                return
            pid = peer.pid(connection)
            if pid in ours:
                self._take(connection, pid)
                continue
            strangers += 1
            if self._unidentified.may_ask() or may_be_expected:
                self._take(connection, 0)
            else:
                hang_up(connection)
                logger.warning("handoff.sock: too many connect that are no workers")
        if strangers:
            waited_for = self._expected or not self.admits.is_set()
            self._pause(SHORT_PAUSE if waited_for else PAUSE)

    def _pause(self, seconds: float) -> None:
        """Accept nothing for so long."""
        self._loop.remove_reader(self._sock)
        self._loop.call_later(seconds, self._listen_again)

    def _take(self, connection: socket.socket, pid: int) -> None:
        limit, most = handoff_messages.MESSAGE_LIMIT, handoff_messages.BATCH_LIMIT
        channel = Channel(connection, limit=limit, most=most, tap=self._tap, close=hang_up)
        self._unidentified.add(channel, pid)
        task = self._loop.create_task(self._receive(connection, channel, pid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _give_up(self, why: str) -> None:
        """Fail the boots that wait for admission; at their deadlines the rollout would not say why."""
        for expected in self._expected.values():
            self._submit(WorkerBootFailed(expected.spawn.serial, "hello", why))

    def _listen_again(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    async def _receive(self, connection: socket.socket, channel: Channel, its_pid: int) -> None:
        """One connection, from its first packet to its last."""
        try:
            await self._converse(connection, channel, its_pid)
        except Exception:  # whoever has found a fault of ours may come again without end
            logger.warning("handoff.sock: cut off, by a fault of ours", exc_info=True)
        finally:
            # Its process's end is seen by its pidfd; the end of the channel alone says nothing more.
            channel.close()

    async def _converse(self, connection: socket.socket, channel: Channel, its_pid: int) -> None:
        try:
            serial, spawn = await self._admit(connection, channel)
        except (PeerError, Refused, TimeoutError, OSError) as error:
            why = str(error) or "said nothing in time"
            # Each of its own kind to the limit: strangers are not to hide what is said of workers.
            about = "handoff.sock: worker, %s, refused: %s" if its_pid else "handoff.sock: %s refused: %s"
            logger.warning(about, _who(connection), why)
            _turn_away(channel, why)
            return
        finally:
            self._unidentified.remove(channel)
        try:
            if spawn is not None:
                await self._hand_over(spawn, channel)
            await self._channels.listen(serial, channel)
        except GaveUpError as error:
            self._submit(WorkerBootFailed(serial, *worker_words.in_short(error.said)))
        except Refused as refusal:
            self._submit(WorkerBootFailed(serial, "listeners", str(refusal)))
        except (PeerError, TimeoutError) as error:
            self._channels.cut_off(serial, channel, error)
        except OSError as error:
            logger.debug("channel of worker %s: %s", serial, error)
        except Exception:
            self._channels.cut_off(serial, channel, PeerError("what it said is not understood"))
            raise
        finally:
            self._channels.stopped(serial, channel)

    async def _admit(self, connection: socket.socket, channel: Channel) -> tuple[int, Spawn | None]:
        """Hear who it is and check that; its serial, and of a new worker, without listeners yet, the order for it."""
        async with asyncio.timeout(HELLO_DEADLINE):
            packet, fds = await channel.receive()
            self._unidentified.heard(channel)
            with contextlib.ExitStack() as stack:
                stack.callback(close_in_thread, fds)
                match handoff_messages.decode_from_worker(packet) if packet else None:
                    case None:
                        raise PeerError("it hung up")
                    case Hello() as hello if not fds:
                        return await self._greet(connection, channel, hello)
                    case Resume() as resume if len(fds) <= 1:
                        stack.enter_context(self._alone(peer.pid(connection), channel))
                        process = await self._take_back(connection, channel, resume)
                        if fds:
                            self._figures_back(process, fds.pop())
                    case message:
                        beside = f" with {amount(len(fds), 'descriptor')}" if fds else ""
                        raise PeerError(f"it said {type(message).__name__}{beside}, not Hello")
        # From here on it may take longer: a supervisor that has just been started has the others to hear first.
        self._unidentified.remove(channel)
        return await self._resumed(channel, resume), None

    async def _greet(self, connection: socket.socket, channel: Channel, hello: Hello) -> tuple[int, Spawn]:
        expected = self._expected.get(hello.nonce)
        if expected is None:
            raise PeerError("no worker with that nonce is expected")
        # It is expected before its process is there: the worker may say hello before spawn() has returned here.
        process = await asyncio.shield(expected.process)
        if not peer.is_process(connection, process.pidfd, process.pid):
            raise PeerError(f"the nonce is that of pid {process.pid}")
        check_protocol(hello.protocol)
        if self._expected.pop(hello.nonce, None) is None:
            raise PeerError("it has said hello already")
        serial = expected.spawn.serial
        self._greeted.add(serial)
        await self._ask(HelloSaid(serial, protocol_versions.takes_sessions(hello.protocol)))
        if serial not in self._greeted:  # nobody would forget it again
            raise PeerError("it has ended")
        self._channels.open(serial, channel, hello.protocol)
        self._known[hello.nonce] = Known(serial, process, was_given=True)
        welcome = protocol_versions.for_version(expected.welcome(), hello.protocol)
        fds = [1, 2, *self._figures(serial)]
        await channel.send(handoff_messages.encode(welcome), fds)
        return serial, expected.spawn

    @contextlib.contextmanager
    def _alone(self, pid: int, channel: Channel) -> Iterator[None]:
        """While it lasts a worker comes back on this channel, and on no other: one that does so anew has lost it."""
        before = self._coming_back.get(pid)
        self._coming_back[pid] = channel
        if before is not None:
            before.close()
        try:
            yield
        finally:
            if self._coming_back.get(pid) is channel:
                del self._coming_back[pid]

    async def _take_back(self, connection: socket.socket, channel: Channel, resume: Resume) -> Process:
        """Check who comes back, and take copies of what it holds into custody."""
        check_protocol(resume.protocol)
        known = self._known.get(resume.nonce)
        with contextlib.ExitStack() as undo:
            if known is not None:
                who: Known | Claimant = known
            elif self.claim is not None:
                caller = peer.principal(connection)
                if caller.uid not in self._uids:
                    raise PeerError(f"it is on no record, and of uid {caller.uid}")
                check_claim(resume)
                process = hold(caller.pid)
                undo.callback(process.close)
                who = Claimant(process, resume)
            else:
                raise PeerError("it is not on record")
            if not peer.is_process(connection, who.process.pidfd, who.process.pid):
                raise PeerError(f"the nonce is that of pid {who.process.pid}")
            if isinstance(who, Known) and not self._channels.may_come_back(who.serial):
                raise PeerError("it has said too much, and may come back later")
            if len(resume.listeners) > self._custody.most_returned:
                raise PeerError(f"it holds {amount(len(resume.listeners), 'listener')}, which nobody does")
            copies = await converse(channel, understand, take_copies(resume))
            queue = copies.queue
            was_given = isinstance(who, Known) and who.was_given
            if queue is not None and was_given and queue.cookies != self._custody.cookies:
                queue.close_in_thread()  # each that is read costs every later worker a reserve of descriptors
                queue = None
            self._custody.take_from_worker(copies.listeners, queue)
            await channel.send(handoff_messages.encode(handoff_messages.Resumed()))
            undo.pop_all()
        if isinstance(who, Known):
            self.spoken.add(who.serial)
            self.changed.set()
        elif self.claim is not None:
            self.claim(who)
        else:
            who.process.close()
            raise PeerError("it came too late to be taken in")
        return who.process

    async def _resumed(self, channel: Channel, resume: Resume) -> int:
        await self.admits.wait()
        known = self._known.get(resume.nonce)
        if known is None:
            raise PeerError("it is no worker of this service")
        serial = known.serial
        self._channels.open(serial, channel, resume.protocol, comes_back=True)
        knows = protocol_versions.takes_sessions(resume.protocol)
        try:
            await self._ask(WorkerResumed(serial, resume.draining, resume.leads, resume.paused, knows))
        except Refused:
            self._channels.withdraw(serial, channel)
            raise
        return serial

    async def _hand_over(self, spawn: Spawn, channel: Channel) -> None:
        """Give a new worker copies of what it is to have of what is in custody."""
        custody, listeners = self._custody, self._custody.listed(spawn.listeners)

        def offer() -> Offer:
            return Offer([one.listener.info for one in listeners], custody.cookies, custody.older)

        with contextlib.closing(custody.batches(listeners)) as batches:
            async with asyncio.timeout(HELLO_DEADLINE):
                await converse(channel, understand, offer_sockets(offer, batches))
        logger.debug("worker %s holds %s", spawn.serial, amount(len(listeners), "listener"))


def _turn_away(channel: Channel, why: str) -> None:
    try:
        channel.send_now(handoff_messages.encode(Refusal(why)))
    except OSError as error:
        logger.debug("nobody left to refuse: %s", error)


def _is_there(process: asyncio.Future[Process]) -> bool:
    """Whether a process was started that was to be."""
    return process.done() and not process.cancelled()


def _who(connection: socket.socket) -> str:
    return str(peer.principal(connection)) if connection.fileno() >= 0 else "somebody"
