"""A worker's connections without the worker: a served app that can be drained."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from supervisor.worker.connections import Drain
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
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def drain(self, *, timeout: float = LONG, final: bool = False) -> tuple[Drain, asyncio.Task[None]]:
        """Begin to drain, as a worker does after it has stopped to accept."""
        begun = Drain(self.served.site, self.changed, timeout=timeout, final=final)
        self.stillup.draining.begin()
        self.served.site.announce_close()
        self.tasks.append(asyncio.create_task(begun.run(lambda: True)))
        return begun, self.tasks[-1]

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
        worker = Worker(served, changed, stillup)
        try:
            yield worker
        finally:
            for task in worker.tasks:
                task.cancel()
            await asyncio.gather(*worker.tasks, return_exceptions=True)


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
