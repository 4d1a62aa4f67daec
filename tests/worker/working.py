"""A worker's connections without the worker: a served app that can be drained."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from supervisor.asgi.acceptor import Acceptor
from supervisor.asgi.resting import Resting
from supervisor.host.adoption import AdoptionQueue
from supervisor.host.sources import Adoptions, Arrival
from supervisor.worker.connections import Drain
from supervisor.worker.giving import Giver
from supervisor.worker.state import Stillup
from tests.asgi.serving import Client, Served, serving

LONG = 60.0
"""More seconds than a test waits: what ends in time then was not ended by the drain's own deadline."""


@dataclass
class Worker:
    """A served app, the event that its connections' ends set, and what it tells the app."""

    served: Served
    changed: asyncio.Event
    stillup: Stillup
    resting: Resting
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    givers: list[Giver] = field(default_factory=list)
    adopters: list[Acceptor] = field(default_factory=list)

    def drain(self, *, timeout: float = LONG, final: bool = False) -> tuple[Drain, asyncio.Task[None]]:
        """Begin to drain, as a worker does after it has stopped to accept."""
        begun = Drain(self.served.site, self.resting, self.changed, timeout=timeout, final=final)
        self.stillup.draining.begin()
        self.served.site.announce_close()
        self.tasks.append(asyncio.create_task(begun.run(lambda: True)))
        return begun, self.tasks[-1]

    def hand_over(
        self, queue: AdoptionQueue, *, timeout: float = LONG, packet: int = 16
    ) -> tuple[Drain, Giver, asyncio.Task[None]]:
        """Begin to drain into a queue, as a worker does whose successors serve."""
        begun = Drain(self.served.site, self.resting, self.changed, timeout=timeout, final=False)
        giver = Giver(queue.writer.dup(), packet, begun.look)
        begun.give_to(giver)
        self.stillup.draining.begin()
        self.tasks.append(asyncio.create_task(begun.run(lambda: True)))
        self.givers.append(giver)
        return begun, giver, self.tasks[-1]

    def adopt(self, queue: AdoptionQueue, *, rest: bool = False) -> Acceptor:
        """Take what comes from the queue, until it ends; with ``rest`` those that are idle rest."""
        source, protocol = Adoptions(queue.reader.dup(), 64), partial(self.served.site.protocol, {})

        def adopted(arrival: Arrival) -> asyncio.Protocol | None:
            return None if rest and self.resting.keep(arrival) else protocol(arrival)

        taking = Acceptor(source, adopted, ended=self.changed.set)
        taking.start()
        self.adopters.append(taking)
        return taking

    async def dial(self, path: str = "/") -> ClientConnection:
        host, port = self.served.address
        return await connect(f"ws://{host}:{port}{path}")


@contextlib.asynccontextmanager
async def working(*, told: bool = False, **options: Any) -> AsyncIterator[Worker]:
    """A worker; with ``told`` its app is given the state that says when it drains."""
    changed = asyncio.Event()
    stillup = Stillup(1, 1)
    state = {"stillup": stillup} if told else {}
    async with serving(app_state=state, **options) as served:
        resting = Resting(partial(served.site.protocol, {}), served.site.config.timeout_keep_alive, changed.set)
        worker = Worker(served, changed, stillup, resting)
        try:
            yield worker
        finally:
            for task in worker.tasks:
                task.cancel()
            await asyncio.gather(*worker.tasks, return_exceptions=True)
            for giver in worker.givers:
                giver.stop()
            for adopter in worker.adopters:
                await adopter.stop()
            await resting.stop()


@contextlib.contextmanager
def a_queue() -> Iterator[AdoptionQueue]:
    """An adoption queue, as the supervisor holds it."""
    queue = AdoptionQueue.make()
    try:
        yield queue
    finally:
        queue.close()


async def idle(worker: Worker) -> Client:
    """A connection that has had its first answer."""
    client = await worker.served.connect()
    await client.ask("/")
    await client.answer()
    return client


async def still(task: asyncio.Task[None]) -> bool:
    """Whether the drain still waits when it has looked at everything."""
    for _ in range(10):
        await asyncio.sleep(0)
    return not task.done()
