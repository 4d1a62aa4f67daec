"""Two workers in one process: connections that one site sends are taken by another from a real adoption queue."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stillup.asgi.acceptor import Acceptor
from stillup.core.crossing import Standing, may_move
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.sources import Adoptions
from stillup.worker.connection_sender import ConnectionSender
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Served, serving


@dataclass
class Crossing:
    """An old site that sends and a new one that takes; ``stayed`` has those that could not go."""

    old: Served
    new: Served
    queue: AdoptionQueue
    sender: ConnectionSender
    adopter: Acceptor
    source: Adoptions
    stayed: list[Any] = field(default_factory=list)

    def offer(self) -> None:
        """Offer every connection of the old site."""
        for connection in list(self.old.site.connections):
            self.sender.offer(connection)

    async def given(self) -> None:
        """Send every connection of the old site, and wait until it has none left."""
        self.offer()
        await until(lambda: not self.old.site.connections)

    async def taken(self, count: int = 1) -> None:
        """Begin to take, and wait until the new site has as many."""
        self.adopter.start()
        await until(lambda: len(self.new.site.connections) == count)

    async def move(self) -> None:
        """Send and take all there are."""
        count = len(self.old.site.connections) + len(self.new.site.connections)
        await self.given()
        await self.taken(count)


@contextlib.asynccontextmanager
async def crossing(
    app: App | None = None,
    *,
    packet: int = 16,
    new_app: App | None = None,
    new_options: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Crossing]:
    """Two sites with the same options, but for ``new_options``, and a queue from the old to the new one."""
    queue = AdoptionQueue.make()
    async with serving(app, **options) as old, serving(new_app, **{**options, **(new_options or {})}) as new:
        source = Adoptions(queue.reader.dup(), 64)
        adopter = Acceptor(source, partial(new.site.protocol, {"side": "new"}))
        stayed: list[Any] = []
        sender = ConnectionSender(queue.writer.dup(), packet, stayed.append)
        try:
            yield Crossing(old, new, queue, sender, adopter, source, stayed)
        finally:
            sender.stop()
            await adopter.stop()
            queue.close()


def standing(served: Served) -> Standing:
    """What the only connection is doing."""
    found: Standing | None = served.connection.standing()
    assert found is not None
    return found


def movable(served: Served) -> bool:
    """Whether the only connection may move."""
    return may_move(standing(served))
