"""Giving connections away: from a worker that drains into the adoption queue.

1. A connection is served here until the moment in which it is sent: what waits for room in the queue waits for nothing.
2. Packets are sent only while the kernel calls the queue writable, which is while it is at most a quarter full
   (unix(7)'s sockets): a connection spends little time between two workers, however many cross.
3. It is closed here only once it is in the queue. Whatever goes wrong before, it stays.
4. Where nobody reads the queue until later, it is filled to the brim, and what does not fit stays.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from supervisor.asgi import borrowed
from supervisor.asgi.resting import Resting
from supervisor.core.crossing import may_move
from supervisor.host import adoption
from supervisor.wire.adoption import PACKET_ENOUGH, ConnectionInfo, encode
from supervisor.wire.figures import CELLS, GIVEN, Cells

logger = logging.getLogger("uvicorn.error")

AGAIN: Final = 0.02
"""Seconds until it is tried again when the kernel has too many descriptors of this user in flight: no event tells."""


class Giver:
    """Puts connections into the queue, some a packet. Owns its copy of the writing end."""

    def __init__(
        self, writer: socket.socket, packet: int, stayed: Callable[[Any], None], cells: Cells | None = None
    ) -> None:
        """Give at most ``packet`` connections at a time; ``stayed`` is told of each that cannot move after all.

        Those that have moved are counted in ``cells``, too.
        """
        self._cells = cells if cells is not None else [0] * CELLS
        self._writer = writer
        self._packet = packet
        self._stayed = stayed
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Any, None] = {}
        self._resting: Resting | None = None
        self._turn: asyncio.Handle | None = None
        """What will give next, unless that is the queue's becoming writable."""
        self._pausing = False
        """Whether that is a timer: the kernel has had enough for now."""
        self._listening = False
        self._full: Callable[[], None] | None = None
        """Who is told when no more goes in; None while somebody reads."""
        self.given = 0
        self.works = True
        """Whether the queue takes connections, now or later; not once nobody can read from it any more."""

    def offer(self, connection: Any) -> None:
        """Give it away as soon as the queue has room, if it may still move then.

        At the loop's next turn, before anything more is read: else a client that asks without a pause would never move.
        """
        self._waiting[connection] = None
        self._give_soon()

    def offer_resting(self, resting: Resting) -> None:
        """Give away those at rest, too, whenever no other waits."""
        self._resting = resting
        if self._wants_to:
            self._give_soon()

    @property
    def _wants_to(self) -> bool:
        """Whether there is somebody to give away."""
        return bool(self._waiting or (self.works and self._resting))

    def park(self, full: Callable[[], None]) -> None:
        """Fill the queue, which nobody reads now; ``full`` is told once no more goes in."""
        self._full = full
        self._rest()
        if self._wants_to:
            self._give_soon()

    def give_now(self) -> None:
        """Give what was offered, as far as the queue has room."""
        if self._turn is not None and not self._pausing:
            self._turn.cancel()
            self._give_while_writable()

    def stop(self) -> None:
        """Give no more; what waited stays. Closing the writing end says so to whoever reads. Idempotent."""
        if self._writer.fileno() < 0:
            return
        self._rest()
        self._writer.close()
        self._keep_all()

    def _give_soon(self) -> None:
        if self._turn is None and not self._listening:
            self._turn = self._loop.call_soon(self._give_while_writable)

    def _rest(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._listening:
            self._listening = False
            self._loop.remove_writer(self._writer.fileno())

    def _give_while_writable(self) -> None:
        self._turn = None
        self._pausing = False
        while self._wants_to and (self._full is not None or adoption.is_writable(self._writer)):
            if not self._give_some():
                return
        if self._wants_to:
            self._listening = True
            self._loop.add_writer(self._writer.fileno(), self._writable)

    def _writable(self) -> None:
        """Send one packet; the loop's other work comes before the next."""
        if self._give_some() and not self._wants_to:
            self._rest()

    def _give_some(self) -> bool:
        """Send one packet; False when there is no more to be done for now."""
        try:
            if self._waiting:
                self._give()
            elif self._resting:
                self._give_resting(self._resting)
        except BlockingIOError:
            if self._full is None:
                return True  # another worker was faster; the queue says when there is room again
            self._keep_all()
            self._full()
            return False
        except OSError as error:
            self._rest()
            if error.errno == errno.ETOOMANYREFS and self._full is not None:
                self._keep_all()
                self._full()
                return False
            if error.errno == errno.ETOOMANYREFS:
                self._turn = self._loop.call_later(AGAIN, self._give_while_writable)
                self._pausing = True
                return False
            logger.error("connections stay here: adoption queue: %s", error)  # noqa: TRY400 - no bug
            self._keep_all()
            return False
        return True

    def _give(self) -> None:
        """Send one packet.

        Raises:
            OSError: as ``host.adoption.send``. All stays as it was.
        """
        packet: dict[Any, ConnectionInfo] = {}
        now, read = time.monotonic(), 0
        stay = []
        for connection in self._waiting:
            # It was served meanwhile: it may have come to its end, or have a request under way.
            found = borrowed.standing(connection)
            if found is None or not may_move(found):
                stay.append(connection)
                continue
            head = found.head or b""
            packet[connection] = borrowed.describe(connection, head, now)
            read += len(head)
            if len(packet) == self._packet or read > PACKET_ENOUGH:
                break
        for connection in stay:
            del self._waiting[connection]
            self._stayed(connection)
        if not packet:
            return
        self._send(list(packet.values()), list(map(borrowed.descriptor, packet)))
        for connection in packet:
            del self._waiting[connection]
            borrowed.let_go(connection)

    def _give_resting(self, resting: Resting) -> None:
        """Send one packet of those at rest.

        Raises:
            OSError: as ``host.adoption.send``. All stays as it was.
        """
        packet, now = resting.first(self._packet), time.monotonic()
        infos = [arrival.info for arrival in packet if arrival.info is not None]
        self._send([replace(info, given=now) for info in infos], [arrival.socket.fileno() for arrival in packet])
        resting.let_go(packet)

    def _send(self, infos: list[ConnectionInfo], fds: list[int]) -> None:
        adoption.send(self._writer, encode(infos), fds)
        self.given += len(infos)
        self._cells[GIVEN] += len(infos)

    def _keep_all(self) -> None:
        self.works = False
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            self._stayed(connection)
