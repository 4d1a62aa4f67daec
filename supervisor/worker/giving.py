"""Giving connections away: from a worker that drains into the adoption queue."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from supervisor.asgi import borrowed
from supervisor.core.crossing import may_move
from supervisor.host import adoption
from supervisor.wire.adoption import PACKET_ENOUGH, ConnectionInfo, encode

logger = logging.getLogger("uvicorn.error")

AGAIN: Final = 0.02
"""Seconds until a full queue is tried again: its becoming writable does not tell of every reason for being full."""


class Giver:
    """Puts connections into the queue, some a packet, waiting while it is full. Owns its copy of the writing end."""

    def __init__(self, writer: socket.socket, packet: int, stayed: Callable[[Any], None]) -> None:
        """Give at most ``packet`` connections at a time; ``stayed`` is told of each that cannot move after all."""
        self._writer = writer
        self._packet = packet
        self._stayed = stayed
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Any, None] = {}
        self._offered = asyncio.Event()
        self._task = self._loop.create_task(self._run())
        self.given = 0
        self.works = True
        """Whether the queue takes connections, now or later; not once nobody can read from it any more."""

    def offer(self, connection: Any) -> None:
        """Give it away as soon as the queue takes it; until then nothing is read from it."""
        borrowed.hold(connection)
        self._waiting[connection] = None
        self._offered.set()

    async def stop(self) -> None:
        """Give no more: what still waits is read again. Says so to the readers by closing the writing end."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()
        self._keep_all()

    def _keep_all(self) -> None:
        self.works = False
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            self._keep(connection)

    def _keep(self, connection: Any) -> None:
        borrowed.release(connection)
        self._stayed(connection)

    async def _run(self) -> None:
        while True:
            await self._offered.wait()
            self._offered.clear()
            while self._waiting:
                try:
                    self._give()
                except BlockingIOError:
                    await self._until_writable()
                except OSError as error:
                    if error.errno != errno.ETOOMANYREFS:
                        logger.error("connections stay here: adoption queue: %s", error)  # noqa: TRY400 - no bug
                        self._keep_all()
                        return
                    await asyncio.sleep(AGAIN)  # this user's descriptors in flight: no event tells when they are fewer
                else:
                    # A turn for everybody else, so that giving many away stops no request.
                    await asyncio.sleep(0)

    def _give(self) -> None:
        """Send one packet.

        Raises:
            BlockingIOError: the queue is full. All stays as it was.
            OSError: as ``host.adoption.send``. All stays as it was.
        """
        packet: dict[Any, ConnectionInfo] = {}
        now, read = time.monotonic(), 0
        for connection in tuple(self._waiting):
            # What was offered may have come to its end meanwhile, such as by its keep-alive timer.
            found = borrowed.standing(connection)
            if found is None or not may_move(found):
                del self._waiting[connection]
                self._keep(connection)
                continue
            head = found.head or b""
            packet[connection] = borrowed.describe(connection, head, now)
            read += len(head)
            if len(packet) == self._packet or read > PACKET_ENOUGH:
                break
        if not packet:
            return
        adoption.send(self._writer, encode(list(packet.values())), map(borrowed.descriptor, packet))
        self.given += len(packet)
        for connection in packet:
            del self._waiting[connection]
            borrowed.let_go(connection)

    async def _until_writable(self) -> None:
        writable = self._loop.create_future()
        self._loop.add_writer(self._writer.fileno(), _wake, writable)
        try:
            await asyncio.wait([writable], timeout=AGAIN)
        finally:
            self._loop.remove_writer(self._writer.fileno())
            writable.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
