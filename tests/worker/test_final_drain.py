"""Drains to which nobody comes after, or whose queue has no room; and what is told of a drain."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass, Rule, uniform
from stillup.core.values import replace
from stillup.host.adoption_queue import AdoptionQueue
from stillup.worker import connection_drain
from stillup.worker.standstills import TICK
from tests.asgi.event_loops import until
from tests.worker.drainable_worker import LONG, UPLOAD, Worker, a_queue, ask, idle, still, working
from tests.worker.full_queue import empty, fill, packets

pytestmark = pytest.mark.usefixtures("loop_factory")

# No room


async def test_become_final_in_the_middle(http: str) -> None:
    """What waits for room when nobody comes after any more stays, and is ended by its class's final rule."""
    with a_queue() as queue:
        async with working(http=http) as old:
            waiting, busy = await idle(old), await old.served.connect()
            await busy.ask("/held")
            await old.served.waits()
            fill(queue)
            begun, sender, task = old.hand_over(queue)
            assert await still(task)
            assert await ask(waiting) == b"ok"
            begun.shorten(LONG, final=True)
            assert await waiting.rest() == b""
            assert (sender.works, sender.given) == (False, 0)
            old.served.app.go.set()
            await busy.answer()
            assert await busy.rest() == b""
            waiting.close()
            busy.close()
            await task
            assert (begun.closed, packets(queue)) == (2, [])


async def test_nobody_reads(http: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With a broken queue each connection has its class's time here: the unread its own, the idle as long as all."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.UNREAD, Rule(handover=0.1, final=LONG))
    caplog.set_level(logging.ERROR, "uvicorn.error")
    with a_queue() as queue:
        async with working(http=http) as old:
            quiet, unread = await idle(old), await old.served.connect()
            queue.reader.close()
            begun, sender, task = old.hand_over(queue)
            assert await unread.rest() == b""
            unread.close()
            assert await ask(quiet) == b"ok"
            assert (begun.closed, sender.works) == (1, False)
            old.pass_time(LONG)
            assert await quiet.rest() == b""
            quiet.close()
            await task
            assert begun.closed == 2


async def test_room_too_late(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What found no room in the whole drain is closed at its end, and counted."""
    monkeypatch.setattr(connection_drain, "LAST_WORDS", 0.2)
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await idle(old)
            filling = fill(queue)
            begun, sender, task = old.hand_over(queue, timeout=0.1)
            assert await client.rest() == b""
            client.close()
            await task
            empty(queue, filling)
            assert (begun.closed, sender.given, queue.waiting()) == (1, 0, 0)


async def test_room_in_time(http: str) -> None:
    """What waited for room goes when there is some, and the drain is over."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await idle(old)
            filling = fill(queue)
            begun, sender, task = old.hand_over(queue)
            assert await ask(client) == b"ok"
            assert await still(task)
            empty(queue, filling)
            await task
            assert (begun.closed, sender.given, queue.waiting()) == (0, 1, 1)


# Nobody comes after


async def final(worker: Worker, queue: AdoptionQueue) -> tuple[connection_drain.ConnectionDrain, asyncio.Task[None]]:
    """Begin a final drain that reads the queue to its end."""
    site, idle, times = worker.served.site, worker.idle, uniform(LONG)
    begun = connection_drain.ConnectionDrain(site, idle, worker.changed, timeouts=times, final=True)
    worker.served.site.announce_close()
    adopter = worker.adopt(queue)
    worker.tasks.append(asyncio.create_task(begun.run(lambda: adopter.at_end)))
    return begun, worker.tasks[-1]


async def test_adopted_during_a_final_drain(http: str) -> None:
    """In a final drain what was given before is taken and served, to the queue's end; each answer is then the last."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            asks, half = await idle(old), await old.served.connect()
            await half.send(UPLOAD[:20])
            await until(lambda: ConnectionClass.HALF_READ in old.served.kinds)
            _, sender, task = old.hand_over(queue)
            await task
            sender.stop()
            await asks.ask("/")
            _, ending = await final(new, queue)
            answer = await asks.answer()
            assert (answer.body, answer.says_close, await asks.rest()) == (b"ok", True, b"")
            await half.send(UPLOAD[20:] + b"body")
            answer = await half.answer()
            assert (answer.body, answer.says_close, await half.rest()) == (b"body", True, b"")
            asks.close()
            half.close()
            assert await still(ending), "the queue has not ended: another worker may still send"
            queue.writer.close()
            await ending


async def test_idle_adopted_during_a_final_drain(http: str) -> None:
    """An idle connection that arrives in a final drain is closed in order, within the drain's spread."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            client = await idle(old)
            _, sender, task = old.hand_over(queue)
            await task
            sender.stop()
            queue.writer.close()
            begun, ending = await final(new, queue)
            assert await client.rest() == b""
            client.close()
            await ending
            assert begun.closed == 1


async def test_who_was_not_served_while_the_worker_stood_still(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause of everything an idle client has as long to ask as it had before, and its answer says close.

    So has one that has said nothing yet. Which is four times what it is by itself: pauses that are too short to count
    take from it, on a machine that others use.
    """
    rule = replace(rules.RULES[ConnectionClass.IDLE], final=4 * rules.LAME_DUCK)
    monkeypatch.setitem(rules.RULES, ConnectionClass.IDLE, rule)
    async with working(http=http) as worker:
        asks, silent, unread = await idle(worker), await idle(worker), await worker.served.connect()
        begun, task = worker.drain(final=True)
        await until(lambda: len(begun.oldest()) == 2)
        time.sleep(4 * rules.LAME_DUCK + 1.5)  # noqa: ASYNC251 - nothing of this process is to go on
        await asyncio.sleep(TICK)
        for client in (asks, unread):
            await client.ask("/")
            answer = await client.answer()
            assert (answer.body, answer.says_close) == (b"ok", True)
        assert await silent.rest() == b""
        for client in (asks, silent, unread):
            client.close()
        await task
        assert (begun.closed, begun.told_to_close) == (1, 2)


# What is told of a drain


async def test_oldest(http: str) -> None:
    """For each class that is still here the age of its oldest, which begins anew when a connection's class changes."""
    with a_queue() as queue:
        async with working(http=http) as old:
            streams = [await old.served.connect() for _ in range(2)]
            held = await old.served.connect()
            for stream in streams:
                await stream.ask("/events")
                await stream.read_to(b"data: 1\n\n")
            await held.ask("/held")
            await old.served.waits(3)
            await idle(old)
            begun, sender, task = old.hand_over(queue)
            assert await still(task)
            later = asyncio.Event()
            asyncio.get_running_loop().call_later(0.2, later.set)
            await later.wait()
            ages = begun.oldest()
            assert set(ages) == {ConnectionClass.STREAM, ConnectionClass.IN_PROGRESS}, "the idle one has moved"
            assert all(0.15 < age < 10 for age in ages.values())
            for stream in streams:
                stream.close()
            await until(lambda: len(old.served.site.connections) == 1)
            assert set(begun.oldest()) == {ConnectionClass.IN_PROGRESS}
            assert sender.given == 1
            old.served.app.go.set()
            await task
            assert begun.oldest() == {}


async def test_oldest_of_a_changed_class(http: str) -> None:
    """A connection that does something else now has done that since now."""
    async with working(http=http) as old:
        client = await idle(old)
        begun, task = old.drain()
        assert await still(task)
        loop, later = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(0.3, later.set)
        await later.wait()
        assert begun.oldest()[ConnectionClass.IDLE] > 0.25
        changed = loop.time()
        await client.send(b"GET / HT")
        await until(lambda: ConnectionClass.HALF_READ in begun.oldest())
        assert begun.oldest()[ConnectionClass.HALF_READ] < loop.time() - changed + 0.1
        await client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        await client.answer()
        await client.rest()
        client.close()
        await task
