"""Sending connections to other workers: from one that drains into the adoption queue.

1. A connection is served here until the moment in which it is sent: what waits for room in the queue waits for nothing.
2. Packets are sent only while the kernel calls the queue writable, which is while it is at most a quarter full
   (unix(7)'s sockets): a connection spends little time between two workers, however many cross.
3. It is closed here only once it is in the queue. Whatever goes wrong before, it stays.
4. Where nobody reads the queue until later, it is filled to the brim, and what does not fit stays.
5. A packet has sessions in it, or none: a worker that does not know them drops it whole.
6. A session for which no memory can be had waits a while for what others leave; nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from stillup.asgi.connection import Connection
from stillup.asgi.idle_connections import IdleConnections
from stillup.core.crossing import ResumeRefusal, may_move
from stillup.errors import PeerError
from stillup.host import adoption_queue, descriptors, sealed_memory
from stillup.wire import session_format
from stillup.wire.adoption_packet import INLINE_LIMIT, PACKET_ENOUGH, ConnectionInfo, encode_some
from stillup.wire.figure_cells import CELLS, GIVEN, SESSION_BYTES, Cells

logger = logging.getLogger("uvicorn.error")

AGAIN: Final = 0.02
"""Seconds until it is tried again when the kernel has too many descriptors of this user in flight: no event tells."""
MEMORY_AGAIN: Final = 0.1
"""Seconds until it is tried again to have memory for a session."""
MEMORY_PATIENCE: Final = 5.0
"""Seconds after which a session without it is told to connect again: nobody serves it meanwhile."""


class ConnectionSender:
    """Puts connections into the queue, some a packet. Owns its copy of the writing end."""

    def __init__(
        self,
        writer: socket.socket,
        packet: int,
        stayed: Callable[[Connection], None],
        cells: Cells | None = None,
        *,
        takes_sessions: bool = False,
    ) -> None:
        """Send at most ``packet`` descriptors at a time; ``stayed`` is told of each connection that cannot move now.

        Those that have moved are counted in ``cells``, too. ``takes_sessions``: whether who reads the queue knows
        sessions that go on.
        """
        self.takes_sessions = takes_sessions
        self._cells = cells if cells is not None else [0] * CELLS
        self._writer = writer
        self._packet = packet
        self._stayed = stayed
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Connection, None] = {}
        self._short: dict[Connection, float] = {}
        """Sessions that there was no memory for, and since when; whether they wait again, or not yet."""
        self._retry: asyncio.TimerHandle | None = None
        """What has them wait again."""
        self._idle: IdleConnections | None = None
        self._idle_left: int | None = None
        """So many of the idle ones are sent at most; None: all."""
        self._next_send: asyncio.Handle | None = None
        """What will send next, unless that is the queue's becoming writable."""
        self._pausing = False
        """Whether that is a timer: the kernel has had enough for now."""
        self._listening = False
        self._full: Callable[[], None] | None = None
        """Who is told when no more goes in; None while somebody reads."""
        self.given = 0
        self.sessions = 0
        """Sessions among those that were given."""
        self.works = True
        """Whether the queue takes connections, now or later; not once nobody can read from it any more."""

    def offer(self, connection: Connection) -> None:
        """Send it as soon as the queue has room, if it may still move then.

        At the loop's next turn, before anything more is read: else a client that asks without a pause would never move.
        """
        self._waiting[connection] = None
        self._send_soon()

    @property
    def waiting(self) -> int:
        """How many wait that were offered."""
        return len(self._waiting.keys() | self._short.keys())

    def offer_idle(self, idle: IdleConnections, most: int | None = None) -> None:
        """Send the idle ones, too, whenever no other waits; so many of them, or all."""
        self._idle, self._idle_left = idle, most
        if self.has_more:
            self._send_soon()

    @property
    def has_more(self) -> bool:
        """Whether there is a connection to send."""
        return bool(self._waiting or (self.works and self._idle and self._idle_left != 0))

    def descriptors(self) -> list[int]:
        """Of the writing end; -1 once it has stopped."""
        return [self._writer.fileno()]

    def park(self, full: Callable[[], None]) -> None:
        """Fill the queue, which nobody reads now; ``full`` is told once no more goes in."""
        self._full = full
        self._stop_listening()
        self._try_short_again()
        if self.has_more:
            self._send_soon()

    def send_now(self) -> None:
        """Send what was offered, as far as the queue has room."""
        if self._next_send is not None and not self._pausing:
            self._next_send.cancel()
            self._send_while_writable()

    def rest(self) -> None:
        """Send no more; what waited stays. Idempotent."""
        if self._writer.fileno() >= 0:
            self._stop_listening()
            self._keep_all()

    def stop(self) -> None:
        """The same, for good: closing the writing end says so to whoever reads. Idempotent."""
        if self._writer.fileno() < 0:
            return
        self._stop_listening()
        self._writer.close()
        self._keep_all()

    def _send_soon(self) -> None:
        if self._next_send is None and not self._listening:
            self._next_send = self._loop.call_soon(self._send_while_writable)

    def _stop_listening(self) -> None:
        if self._next_send is not None:
            self._next_send.cancel()
            self._next_send = None
        if self._listening:
            self._listening = False
            self._loop.remove_writer(self._writer.fileno())

    def _send_while_writable(self) -> None:
        self._next_send = None
        self._pausing = False
        while self.has_more and (self._full is not None or adoption_queue.is_writable(self._writer)):
            if not self._send_some():
                return
        if self.has_more:
            self._listening = True
            self._loop.add_writer(self._writer.fileno(), self._writable)

    def _writable(self) -> None:
        """Send one packet; the loop's other work comes before the next."""
        if self._send_some() and not self.has_more:
            self._stop_listening()

    def _send_some(self) -> bool:
        """Send one packet; False when there is no more to be done for now."""
        try:
            if self._waiting:
                self._send_waiting()
            elif self._idle and self._idle_left != 0:
                self._send_idle(self._idle)
        except BlockingIOError:
            if self._full is None:
                return True  # another worker was faster; the queue says when there is room again
            self._keep_all()
            self._full()
            return False
        except OSError as error:
            self._stop_listening()
            if error.errno == errno.ETOOMANYREFS and self._full is not None:
                self._keep_all()
                self._full()
                return False
            if error.errno == errno.ETOOMANYREFS:
                self._next_send = self._loop.call_later(AGAIN, self._send_while_writable)
                self._pausing = True
                return False
            logger.error("connections stay here: adoption queue: %s", error)  # noqa: TRY400 - no bug
            self._keep_all()
            return False
        return True

    def _send_waiting(self) -> None:
        """Send one packet.

        Raises:
            OSError: as ``host.adoption_queue.send``. All that was to be in it stays as it was.
        """
        with contextlib.ExitStack() as memory:
            packet, beside = self._next_packet(memory)
            if packet:
                self._send_connections(packet, beside)

    def _next_packet(
        self, memory: contextlib.ExitStack
    ) -> tuple[dict[Connection, ConnectionInfo], dict[Connection, int]]:
        """The first that wait, as many as a packet takes, and descriptors of sessions beside; ``memory`` owns those.

        Those that cannot move, or not yet, wait no longer.
        """
        packet: dict[Connection, ConnectionInfo] = {}
        beside: dict[Connection, int] = {}
        now, read, sessions = time.monotonic(), 0, False
        stay: list[Connection] = []
        too_large: list[Connection] = []
        short: list[Connection] = []
        for connection in self._waiting:
            # It was served meanwhile: it may have come to its end, or have a request under way.
            found = connection.standing()
            if found is None or not may_move(found):
                stay.append(connection)
                continue
            if packet and found.session is not sessions:
                break
            sessions = found.session
            head = found.head or b""
            info = connection.describe(head, now)
            if found.session:
                try:
                    packed = _packed(connection)
                except PeerError as error:
                    logger.error("a session cannot be moved: %s", error)  # noqa: TRY400 - no bug
                    too_large.append(connection)
                    continue
                inline = len(packed) <= INLINE_LIMIT
                if not inline and len(packet) + len(beside) + 2 > self._packet and packet:
                    break
                info = replace(info, session=packed) if inline else replace(info, beside=len(packed))
                if inline:
                    read += len(packed)
                else:
                    try:
                        beside[connection] = sealed_memory.sealed(packed)
                    except OSError as error:
                        if connection not in self._short:
                            logger.warning("a session has no memory to move in: %s", error)
                        (short if self._may_wait(connection) else too_large).append(connection)
                        continue
                    memory.callback(descriptors.close, [beside[connection]])
            packet[connection] = info
            read += len(head)
            if len(packet) + len(beside) >= self._packet or read > PACKET_ENOUGH:
                break
        for connection in short:
            del self._waiting[connection]
        if short and self._retry is None:
            self._retry = self._loop.call_later(MEMORY_AGAIN, self._try_short_again)
        for connection in too_large:
            self._waits_no_more(connection)
            connection.refuse(ResumeRefusal.TOO_LARGE)
        for connection in stay:
            self._waits_no_more(connection)
            self._stayed(connection)
        return packet, beside

    def _may_wait(self, connection: Connection) -> bool:
        """Whether a session that there is no memory for is tried again; not where nobody reads what was given."""
        now = self._loop.time()
        return self._full is None and now < self._short.setdefault(connection, now) + MEMORY_PATIENCE

    def _try_short_again(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._waiting.update(dict.fromkeys(self._short))
        if self._short:
            self._send_soon()

    def _waits_no_more(self, connection: Connection) -> None:
        del self._waiting[connection]
        self._short.pop(connection, None)

    def _send_connections(self, packet: dict[Connection, ConnectionInfo], beside: dict[Connection, int]) -> None:
        """Send one packet of those; ``beside`` are the descriptors of sessions that ride in memory of their own.

        Raises:
            OSError: as ``host.adoption_queue.send``. All stays as it was.
        """
        fds = [[one.descriptor(), *([beside[one]] if one in beside else [])] for one in packet]
        sent = self._send_packet(list(packet.values()), fds)
        for connection, info in list(packet.items())[: max(sent, 1)]:
            self._waits_no_more(connection)
            if sent:
                self.sessions += info.is_session
                self._cells[SESSION_BYTES] += info.beside or len(info.session)
                connection.let_go()
            else:
                self._stayed(connection)

    def _send_idle(self, idle: IdleConnections) -> None:
        """Send one packet of idle ones.

        Raises:
            OSError: as ``host.adoption_queue.send``. All stays as it was.
        """
        left = self._packet if self._idle_left is None else min(self._packet, self._idle_left)
        packet, now = idle.first(left), time.monotonic()
        infos = [arrival.info for arrival in packet if arrival.info is not None]
        infos = [replace(info, given=now) for info in infos]
        sent = self._send_packet(infos, [[arrival.socket.fileno()] for arrival in packet])
        idle.let_go(packet[: max(sent, 1)])  # one that no packet takes is ended
        if self._idle_left is not None:
            self._idle_left -= max(sent, 1)

    def _send_packet(self, infos: list[ConnectionInfo], fds: list[list[int]]) -> int:
        """Send the first of these, as many as fit into a packet; how many. None if the first alone does not fit."""
        try:
            packet, count = encode_some(infos)
        except PeerError as error:
            logger.error("a connection cannot be moved: %s", error)  # noqa: TRY400 - no bug
            return 0
        adoption_queue.send(self._writer, packet, itertools.chain.from_iterable(fds[:count]))
        self.given += count
        self._cells[GIVEN] += count
        return count

    def _keep_all(self) -> None:
        self.works = False
        waiting = [*self._waiting, *(one for one in self._short if one not in self._waiting)]
        self._waiting, self._short = {}, {}
        self._try_short_again()
        for connection in waiting:
            self._stayed(connection)


def _packed(connection: Connection) -> bytes:
    """The session of one that is one.

    Raises:
        PeerError: it is too large.
    """
    session = connection.packed()
    assert session is not None  # noqa: S101 - for the type checker: it may move, so its app has handed it over
    return session_format.encode(session)
