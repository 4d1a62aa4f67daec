"""Where a worker's connections come from: the listeners it accepts on, and the adoption queues it reads."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Collection
from typing import Final

from stillup.asgi.acceptor import Acceptor
from stillup.asgi.connection import Connection
from stillup.asgi.idle_connections import IdleConnections
from stillup.asgi.site import Site
from stillup.core.crossing import LONGEST_PAUSE, PACKET_FOR_ONE
from stillup.host import adoption_queue
from stillup.host.sources import Adoptions, Arrival, Backlog
from stillup.wire import figure_cells
from stillup.worker.gc_pause import GcPause
from stillup.worker.supervisor_channel import SupervisorChannel
from stillup.worker.worker_events import WorkerEvents

ROOM_PATIENCE: Final = 3.0
"""Seconds that a worker at its --limit-concurrency leaves connections in the queue to others."""


class ConnectionIntake:
    """Takes connections for one site, from when it is told until it is stopped."""

    def __init__(self, supervisor: SupervisorChannel, site: Site, events: WorkerEvents) -> None:
        self._supervisor = supervisor
        self._site = site
        self._events = events
        self._acceptors: list[Acceptor] = []
        """Of the listeners, in their order, once they are accepted on."""
        self._closing: set[asyncio.Task[None]] = set()
        """Those of listeners that end before we do."""
        self.idle = IdleConnections(self._protocol, site.config.timeout_keep_alive, events.changed.set)
        """Those that were adopted idle, and whose clients have said nothing since."""
        # After all else that needs a descriptor: they keep all those that are free, if there are too few.
        self._adoptions = [Adoptions(reader, PACKET_FOR_ONE) for reader in (supervisor.queue.reader, *supervisor.older)]
        """Of our queue first; what other supervisors' workers write to ends when they have left."""
        self._adopters = [
            Acceptor(adoptions, self._adopt, ready=self._may_adopt, ended=events.changed.set)
            for adoptions in self._adoptions
        ]
        self._gc_pause = GcPause()
        self._full_since: float | None = None
        self.adopted = 0
        self.sessions = 0
        """Sessions among those that were adopted."""
        self.longest = 0.0
        """Seconds; the longest that one connection was between two workers."""

    @property
    def has_reserve(self) -> bool:
        """Whether there are descriptors enough to take connections over."""
        return all(adoptions.has_reserve for adoptions in self._adoptions)

    @property
    def accepts(self) -> bool:
        """Whether it was told to accept."""
        return bool(self._acceptors)

    @property
    def lost(self) -> int:
        """Connections that were dropped by the kernel on the way in, or could not be understood."""
        return sum(adoptions.lost for adoptions in self._adoptions)

    @property
    def queue_at_end(self) -> bool:
        """Whether nobody can write to our own queue any more, or it is not read any more."""
        return self._adopters[0].at_end

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Make connections to come with that; those that are there stay as they are."""
        self._site.config.ssl = context
        for acceptor in self._acceptors:
            acceptor.tls = context

    def accept(self) -> None:
        """Take what comes, from here on."""
        for name, listener in self._supervisor.listeners:
            acceptor = Acceptor(Backlog(name, listener), self._protocol, tls=self._site.config.ssl)
            acceptor.start()
            self._acceptors.append(acceptor)
        for adopter in self._adopters:
            adopter.start()

    async def pause(self) -> None:
        """Take nothing until ``accept_again``, and wait until every connection that was taken has its protocol."""
        sources = [*self._acceptors, *self._adopters]
        for source in sources:
            source.pause()
        await asyncio.gather(*(source.made() for source in sources))

    def accept_again(self) -> None:
        """Take what comes again, after a pause."""
        for source in (*self._acceptors, *self._adopters):
            source.start()

    def adopt(self, *, on: bool) -> None:
        """Whether the queues are read while it accepts; if they are not, what is put there is for others."""
        for adopter in self._adopters if self.accepts else ():
            if on:
                adopter.start()
            else:
                adopter.pause()

    def cordon(self, *, on: bool) -> None:
        """Accept as before; whether clients are told to come back by another connection (``Site.cordon``)."""
        self._site.cordon(on=on)

    def keep_only(self, cookies: Collection[int]) -> None:
        """Close the other listeners, each when what waits in its backlog is taken; a worker that accepts is told.

        Ours may be the last copy of one: whoever waited there when that is closed would be reset.
        """
        for (_, listener), acceptor in zip(self._supervisor.listeners, self._acceptors, strict=False):
            if listener.fileno() >= 0 and adoption_queue.cookie(listener) not in cookies:
                closing = asyncio.get_running_loop().create_task(acceptor.stop(empty=True))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    async def stop_accepting(self, *, empty: bool) -> None:
        """Close the listeners; with ``empty`` what waits in their backlogs is taken first."""
        await asyncio.gather(*(acceptor.stop(empty=empty) for acceptor in self._acceptors))

    async def stop_adopting(self) -> None:
        """Read the queues no more. Idempotent."""
        await asyncio.gather(*(adopter.stop() for adopter in self._adopters))

    def descriptors(self) -> list[int]:
        """Of all connections, and of what watches those that are idle."""
        return [*self.idle.descriptors(), *(connection.descriptor() for connection in self._site.connections)]

    def end_gc_pause(self) -> None:
        """Let the collector work again, in a child that was forked in a pause."""
        self._gc_pause.end()

    def _protocol(self, arrival: Arrival) -> Connection:
        return self._site.protocol(self._site.lifespan.state, arrival)

    def _may_adopt(self) -> bool:
        """Whether there is room under --limit-concurrency; if there is none for long, there is none anywhere."""
        now = asyncio.get_running_loop().time()
        if self._site.has_room_for(1 + sum(adopter.connecting for adopter in self._adopters)):
            self._full_since = None
            return True
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since > ROOM_PATIENCE

    def _adopt(self, arrival: Arrival) -> Connection | None:
        self.adopted += 1
        self._supervisor.figures[figure_cells.ADOPTED] += 1
        self._gc_pause.one_more()
        if arrival.info is not None:
            pause = time.monotonic() - arrival.info.given
            self.longest = max(self.longest, min(pause, LONGEST_PAUSE))
        self._events.news.set()
        # With a limit uvicorn is to count them all.
        limited = self._site.config.limit_concurrency is not None
        self.sessions += arrival.session is not None
        if arrival.session is None and not limited and not self._events.retiring.is_set() and self.idle.keep(arrival):
            return None
        return self._protocol(arrival)
