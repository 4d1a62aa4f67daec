"""A worker's connections without the worker: a served app that can be drained."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from stillup.asgi.acceptor import Acceptor
from stillup.asgi.idle_connections import IdleConnections
from stillup.core.drain import ClassTimeouts, uniform
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.sources import Adoptions, Arrival
from stillup.worker.app_state import Stillup
from stillup.worker.connection_drain import ConnectionDrain
from stillup.worker.connection_sender import ConnectionSender
from tests.asgi.event_loops import until
from tests.asgi.served_app import Client, Served, serving

SIZE = 60_000
"""Bytes of an answer or a message that is not small."""
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
LONG = 60.0
"""More seconds than a test waits: what ends in time then was not ended by the drain's own deadline."""


@dataclass
class Worker:
    """A served app, the event that its connections' ends set, and what it tells the app."""

    served: Served
    changed: asyncio.Event
    stillup: Stillup
    idle: IdleConnections
    drains: list[ConnectionDrain] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    senders: list[ConnectionSender] = field(default_factory=list)
    adopters: list[Acceptor] = field(default_factory=list)

    def drain(
        self, *, timeout: float = LONG, timeouts: ClassTimeouts | None = None, final: bool = False
    ) -> tuple[ConnectionDrain, asyncio.Task[None]]:
        """Begin to drain, as a worker does after it has stopped to accept."""
        times = timeouts or uniform(timeout)
        begun = ConnectionDrain(self.served.site, self.idle, self.changed, timeouts=times, final=final)
        self.stillup.draining.begin()
        self.served.site.announce_close()
        self.drains.append(begun)
        self.tasks.append(asyncio.create_task(begun.run(lambda: True)))
        return begun, self.tasks[-1]

    def pass_time(self, seconds: float) -> None:
        """Have the drains as if they had begun so much earlier; their timers of single connections stay."""
        for begun in self.drains:
            begun._began -= seconds
        self.changed.set()

    def hand_over(
        self, queue: AdoptionQueue, *, timeout: float = LONG, packet: int = 16, sessions: bool = False
    ) -> tuple[ConnectionDrain, ConnectionSender, asyncio.Task[None]]:
        """Begin to drain into a queue, as a worker does whose successors serve."""
        begun = ConnectionDrain(self.served.site, self.idle, self.changed, timeouts=uniform(timeout), final=False)
        sender = ConnectionSender(queue.writer.dup(), packet, begun.look, takes_sessions=sessions)
        begun.send_with(sender)
        self.stillup.draining.begin()
        self.drains.append(begun)
        self.tasks.append(asyncio.create_task(begun.run(lambda: True)))
        self.senders.append(sender)
        return begun, sender, self.tasks[-1]

    def adopt(self, queue: AdoptionQueue, *, keep_idle: bool = False) -> Acceptor:
        """Take what comes from the queue, until it ends; with ``keep_idle`` those that are idle get no protocol."""
        source, protocol = Adoptions(queue.reader.dup(), 64), partial(self.served.site.protocol, {})

        def adopted(arrival: Arrival) -> asyncio.Protocol | None:
            return None if keep_idle and self.idle.keep(arrival) else protocol(arrival)

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
        idle = IdleConnections(partial(served.site.protocol, {}), served.site.config.timeout_keep_alive, changed.set)
        worker = Worker(served, changed, stillup, idle)
        try:
            yield worker
        finally:
            for task in worker.tasks:
                task.cancel()
            await asyncio.gather(*worker.tasks, return_exceptions=True)
            for sender in worker.senders:
                sender.stop()
            for adopter in worker.adopters:
                await adopter.stop()
            await idle.stop()


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


async def ask(client: Client) -> bytes:
    """The body of the answer to one more request, on a connection that stays."""
    await client.ask("/")
    answer = await client.answer()
    assert not answer.says_close
    return answer.body


async def turned(worker: Worker, condition: Callable[[], object]) -> None:
    """Wait for a condition, while the drain goes on."""
    await until(condition)
    assert not any(task.done() for task in worker.tasks)
