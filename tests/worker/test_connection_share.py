"""A worker gives a share of what is idle, and serves on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stillup.host.adoption_queue import AdoptionQueue
from stillup.wire.figure_cells import GIVEN
from stillup.worker.connection_share import ConnectionShare
from stillup.worker.worker_events import WorkerEvents
from tests.asgi.event_loops import until
from tests.asgi.served_app import Client
from tests.worker.drainable_worker import LONG, Worker, a_queue, idle, working
from tests.worker.full_queue import fill

pytestmark = pytest.mark.usefixtures("loop_factory")

CLIENTS = 20


@asynccontextmanager
async def giving() -> AsyncIterator[tuple[AdoptionQueue, Worker, ConnectionShare, WorkerEvents]]:
    """A worker that is to give, and the queue that it gives to."""
    with a_queue() as queue:
        async with working(timeout_keep_alive=LONG) as worker:
            events = WorkerEvents()
            yield queue, worker, ConnectionShare(queue, worker.served.site, worker.idle, events), events


async def asked(client: Client) -> bytes:
    await client.ask("/")
    return (await client.answer()).body


async def test_a_share() -> None:
    """A half of those that are kept crosses, is counted, and all are answered, wherever they are."""
    async with giving() as (queue, old, share, _), working(timeout_keep_alive=LONG) as new:
        new.adopt(queue)
        clients = [await idle(old) for _ in range(CLIENTS)]
        share.give(0.5)
        share.give(0.5)  # once is enough
        await until(lambda: share.given == CLIENTS // 2 and not share.descriptors())
        await until(lambda: len(new.served.site.connections) == CLIENTS // 2)
        assert len(old.served.site.connections) == CLIENTS // 2
        assert old.served.site.cells[GIVEN] == CLIENTS // 2
        assert [await asked(client) for client in clients] == [b"ok"] * CLIENTS
        share.give(1.0)
        await until(lambda: share.given == CLIENTS and not share.descriptors())
        assert [await asked(client) for client in clients] == [b"ok"] * CLIENTS


async def test_of_the_busy() -> None:
    """The share is of those that answer, too; each goes when it has answered, and a stream stays."""
    async with giving() as (queue, worker, share, _), working(timeout_keep_alive=LONG) as new:
        new.adopt(queue)
        stream = await worker.served.connect()
        await stream.ask("/halves")
        clients = [await worker.served.connect() for _ in range(CLIENTS)]
        for client in clients:
            await client.ask("/held")
        await worker.served.waits(1 + CLIENTS)
        share.give(0.5)
        await until(lambda: share.descriptors() != [])
        worker.served.app.go.set()
        assert [(await client.answer()).body for client in clients] == [b"at last"] * CLIENTS
        await until(lambda: not share.descriptors())
        assert (share.given, len(new.served.site.connections)) == (CLIENTS // 2, CLIENTS // 2)
        assert [await asked(client) for client in clients] == [b"ok"] * CLIENTS
        assert (await stream.answer()).body == b"halfhalf"


async def test_without_a_queue(caplog: pytest.LogCaptureFixture) -> None:
    """It is said why nothing can be given, and all stay."""
    async with giving() as (queue, worker, share, _):
        client = await idle(worker)
        queue.close()
        share.give(1.0)
        await until(lambda: "the canary gets no connections: adoption queue: " in caplog.text)
        assert (share.given, share.descriptors()) == (0, [])
        assert await asked(client) == b"ok"


async def test_of_those_without_a_protocol() -> None:
    """A share of what was adopted idle crosses, too; the rest stays as it is."""
    async with giving() as (queue, middle, share, _), working(timeout_keep_alive=LONG) as old:
        adopter = middle.adopt(queue, keep_idle=True)
        clients = [await idle(old) for _ in range(CLIENTS)]
        _, _, task = old.hand_over(queue)
        await task
        await until(lambda: len(middle.idle) == CLIENTS)
        await adopter.stop()
        async with working(timeout_keep_alive=LONG) as new:
            new.adopt(queue, keep_idle=True)
            share.give(0.25)
            await until(lambda: len(new.idle) == CLIENTS // 4)
            assert (share.given, len(middle.idle)) == (CLIENTS // 4, CLIENTS - CLIENTS // 4)
            assert [await asked(client) for client in clients] == [b"ok"] * CLIENTS


async def test_what_is_busy_stays() -> None:
    """A request in progress, half a head, and who has asked nothing."""
    async with giving() as (queue, worker, share, _):
        half, unread = await worker.served.connect(), await worker.served.connect()
        await half.send(b"GET / HT")
        await until(lambda: len(worker.served.site.connections) == 2)
        share.give(1.0)
        await until(lambda: not share.descriptors())
        assert (share.given, queue.waiting()) == (0, 0)
        await half.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert (await half.answer()).body == b"ok"
        assert await asked(unread) == b"ok"


async def test_a_full_queue_and_a_retirement() -> None:
    """What finds no room stays, and is served; when the worker retires the giving ends at once."""
    async with giving() as (queue, worker, share, events):
        clients = [await idle(worker) for _ in range(3)]
        fill(queue)
        share.give(1.0)
        await until(lambda: share.descriptors() != [])
        assert [await asked(client) for client in clients] == [b"ok"] * 3
        events.retiring.set()
        await until(lambda: share.descriptors() == [])
        assert [await asked(client) for client in clients] == [b"ok"] * 3
        share.give(1.0)
        await asyncio.sleep(0)
        assert (share.given, share.descriptors()) == (0, [])
