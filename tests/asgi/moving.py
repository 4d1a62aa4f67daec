"""Two workers in one process: connections that one site gives away are taken by another from a real adoption queue."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from supervisor.asgi import borrowed
from supervisor.asgi.acceptor import Acceptor
from supervisor.core.crossing import Standing, may_move
from supervisor.host.adoption import AdoptionQueue
from supervisor.host.sources import Adoptions
from supervisor.worker.giving import Giver
from tests.asgi.running import until
from tests.asgi.serving import App, Served, serving


@dataclass
class Crossing:
    """An old site that gives and a new one that takes; ``stayed`` has those that could not go."""

    old: Served
    new: Served
    queue: AdoptionQueue
    giver: Giver
    adopter: Acceptor
    source: Adoptions
    stayed: list[Any] = field(default_factory=list)

    def offer(self) -> None:
        """Offer every connection of the old site."""
        for connection in list(self.old.site.state.connections):
            self.giver.offer(connection)

    async def given(self) -> None:
        """Give every connection of the old site, and wait until it has none left."""
        self.offer()
        await until(lambda: not self.old.site.state.connections)

    async def taken(self, count: int = 1) -> None:
        """Begin to take, and wait until the new site has as many."""
        self.adopter.start()
        await until(lambda: len(self.new.site.state.connections) == count)

    async def move(self) -> None:
        """Give and take all there are."""
        count = len(self.old.site.state.connections) + len(self.new.site.state.connections)
        await self.given()
        await self.taken(count)


@contextlib.asynccontextmanager
async def crossing(
    *, packet: int = 16, new_app: App | None = None, new_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Crossing]:
    """Two sites with the same options, but for ``new_options``, and a queue from the old to the new one."""
    queue = AdoptionQueue.make()
    async with serving(**options) as old, serving(new_app, **{**options, **(new_options or {})}) as new:
        source = Adoptions(queue.reader.dup(), 64)
        adopter = Acceptor(source, partial(new.site.protocol, {"side": "new"}))
        stayed: list[Any] = []
        giver = Giver(queue.writer.dup(), packet, stayed.append)
        try:
            yield Crossing(old, new, queue, giver, adopter, source, stayed)
        finally:
            giver.stop()
            await adopter.stop()
            queue.close()


def standing(served: Served) -> Standing:
    """What the only connection is doing."""
    found = borrowed.standing(served.connection)
    assert found is not None
    return found


def movable(served: Served) -> bool:
    """Whether the only connection may move."""
    return may_move(standing(served))
