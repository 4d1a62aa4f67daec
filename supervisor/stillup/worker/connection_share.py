"""Giving a share of the kept connections to the workers that read the adoption queue, while this one serves on.

1. They would stay where they are, so a canary would see only who connects anew.
2. The share is of all that have asked, busy or idle: of those that are idle in one instant it would be next to nothing
   where clients hardly pause. Each of it is given as soon as it is between two requests.
3. A WebSocket and a stream stay; so does what comes to no pause, or finds no room in the queue, in time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from stillup.asgi.connection import Connection
from stillup.asgi.idle_connections import IdleConnections
from stillup.asgi.site import Site
from stillup.core.crossing import PACKET_AMONG_SEVERAL, class_of, may_move
from stillup.core.drain import ConnectionClass
from stillup.host.adoption_queue import AdoptionQueue
from stillup.worker.connection_count import SLICE
from stillup.worker.connection_sender import ConnectionSender
from stillup.worker.worker_events import WorkerEvents

logger = logging.getLogger("uvicorn.error")

PATIENCE: Final = 5.0
"""Seconds after which nothing more is given."""
LOOK: Final = 0.05
"""Seconds between two looks at which of the share is idle now, and whether all is given."""


class ConnectionShare:
    """Gives as it is told, until the worker retires: then everything is handed over anyway."""

    def __init__(self, queue: AdoptionQueue, site: Site, idle: IdleConnections, events: WorkerEvents) -> None:
        """Give nothing yet; ``idle``: those without a protocol."""
        self._queue = queue
        self._site = site
        self._idle = idle
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._sender: ConnectionSender | None = None
        self._given_before = 0

    @property
    def given(self) -> int:
        """Connections put into the adoption queue."""
        return self._given_before + (self._sender.given if self._sender is not None else 0)

    def give(self, share: float) -> None:
        """Give that share of what is kept now, of 1; asked again meanwhile, it is asked once."""
        busy = self._task is not None and not self._task.done()
        if not busy and self._site.can_move and not self._events.retiring.is_set():
            self._task = asyncio.get_running_loop().create_task(self._give(share))

    def descriptors(self) -> list[int]:
        """What no child of the app's may hold open."""
        return self._sender.descriptors() if self._sender is not None else []

    async def _give(self, share: float) -> None:
        loop = asyncio.get_running_loop()
        limited = self._site.config.limit_concurrency is not None
        packet = 1 if limited else PACKET_AMONG_SEVERAL
        try:
            # A copy of its own, to be closed at once when the worker retires: that hands over by the other.
            writer = self._queue.writer.dup()
        except OSError as error:
            logger.error("the canary gets no connections: adoption queue: %s", error)  # noqa: TRY400 - no bug
            return
        share_left: set[Connection] = set()
        self._sender = sender = ConnectionSender(writer, packet, share_left.add, self._site.cells)
        retiring = loop.create_task(self._events.retiring.wait())
        try:
            sender.offer_idle(self._idle, _part(share, len(self._idle)))
            kept = await self._kept()
            share_left.update(random.sample(kept, _part(share, len(kept))))
            deadline = loop.time() + PATIENCE
            while sender.works and (share_left or sender.has_more) and loop.time() < deadline:
                _offer_some(sender, share_left)
                if (await asyncio.wait({retiring}, timeout=LOOK))[0]:
                    break
        finally:
            retiring.cancel()
            sender.stop()
            self._sender, self._given_before = None, self._given_before + sender.given
            self._events.news.set()

    async def _kept(self) -> list[Connection]:
        """The connections that have a protocol and have asked, and are likely to be between two requests soon."""
        found = []
        for place, connection in enumerate(list(self._site.connections)):
            standing = connection.standing()
            if standing is not None and standing.asked and not standing.session and not standing.streaming:
                found.append(connection)
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        return found


def _offer_some(sender: ConnectionSender, share: set[Connection]) -> None:
    """Offer those that are between two requests now, and forget those that have ended."""
    for connection in list(share):
        standing = connection.standing()
        if standing is None:
            share.remove(connection)
        elif may_move(standing) and class_of(standing) is ConnectionClass.IDLE:
            share.remove(connection)
            sender.offer(connection)  # which comes back if it is busy again before there is room


def _part(share: float, of: int) -> int:
    """So many of them, a fraction by chance: else a worker with a few would give none, whoever asks."""
    return min(of, int(share * of + random.random()))  # noqa: S311 - nobody gains by guessing it
