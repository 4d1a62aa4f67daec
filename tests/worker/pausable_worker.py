"""A worker's connections with all that takes them and lets them go, without its process: it can pause, and leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.channel import Channel
from stillup.wire.handoff_messages import PROTOCOL, Pause, Welcome
from stillup.worker.connection_intake import ConnectionIntake
from stillup.worker.retirement import Retirement
from stillup.worker.supervisor_channel import SupervisorChannel
from stillup.worker.worker_events import WorkerEvents
from tests.asgi.event_loops import until
from tests.asgi.served_app import LISTENER
from tests.worker.drainable_worker import LONG, Worker, working

PAUSE = Pause(LONG, LONG, 0.0)


@dataclass
class Pausable:
    """A served app whose connections come by an intake, and the retirement that is told of."""

    worker: Worker
    retirement: Retirement
    intake: ConnectionIntake
    life: asyncio.Task[None]
    """Over when it has left."""

    async def pause(self, told: Pause = PAUSE) -> None:
        """Until nothing is left of what it held."""
        self.retirement.pause(told)
        await until(lambda: self.retirement.at_rest)

    async def leaves(self) -> None:
        """Wait for its end."""
        async with asyncio.timeout(LONG / 2):
            await self.life


@contextlib.asynccontextmanager
async def pausable(queue: AdoptionQueue, **options: Any) -> AsyncIterator[Pausable]:
    """A worker that accepts, and gives to the queue's readers; it has no supervisor that it could hear of."""
    async with working(**options) as worker:
        site = worker.served.site
        listener = cast("Any", worker.served.acceptor)._source._sock.dup()
        await worker.served.acceptor.stop()
        welcome = Welcome(PROTOCOL, 1, 1, "a:app", "/", "/", {}, LONG, LONG)
        ends = AdoptionQueue(queue.reader.dup(), queue.writer.dup())
        channel = cast("Channel", None)
        supervisor = SupervisorChannel("", "", channel, welcome, -1, -1, [(LISTENER, listener)], ends)
        events = WorkerEvents(changed=worker.changed)
        intake = ConnectionIntake(supervisor, site, events)
        retirement = Retirement(supervisor, site, intake, worker.stillup, events)
        intake.accept()

        async def live() -> None:
            """As ``Server.run``."""
            while not retirement.has_begun:
                await events.retiring.wait()
                await retirement.run()

        life = asyncio.create_task(live())
        worker.tasks.append(life)
        try:
            yield Pausable(worker, retirement, intake, life)
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            await intake.stop_accepting(empty=False)
            await intake.stop_adopting()
            await intake.idle.stop()
            ends.writer.close()
