"""Drains beside a successor: each connection moves as soon as it may, or ends by its class's rule."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.core import drain as rules
from supervisor.core.drain import ConnectionClass, Rule
from supervisor.host.adoption import AdoptionQueue
from supervisor.worker import connections
from tests.asgi.running import until
from tests.asgi.serving import App, Client
from tests.worker.filling import empty, fill, packets
from tests.worker.working import LONG, Worker, a_queue, idle, still, working

pytestmark = pytest.mark.usefixtures("loop_factory")

SIZE = 60_000
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


async def ask(client: Client) -> bytes:
    await client.ask("/")
    answer = await client.answer()
    assert not answer.says_close
    return answer.body


async def turned(worker: Worker, condition: Callable[[], object]) -> None:
    """Wait for a condition, while the drain goes on."""
    await until(condition)
    assert not any(task.done() for task in worker.tasks)


async def test_everything_moves(http: str) -> None:
    """The unread, the idle and the half-read move at once, and the drain is over with nobody closed."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            clients = [await old.served.connect(), await idle(old), await old.served.connect()]
            await clients[2].send(UPLOAD[:20])
            await until(lambda: ConnectionClass.HALF_READ in old.served.kinds)
            begun, giver, task = old.hand_over(queue)
            await task
            assert (giver.given, begun.closed, queue.waiting()) == (3, 0, 3)
            new.adopt(queue)
            assert [await ask(client) for client in clients[:2]] == [b"ok", b"ok"]
            await clients[2].send(UPLOAD[20:] + b"body")
            assert (await clients[2].answer()).body == b"body"


async def test_nothing_is_kept_of_those_that_left(http: str) -> None:
    """Not by the drain, and not in cycles: thousands of them would make the process's end the longest part of it."""
    with a_queue() as queue:
        async with working(http=http) as old:
            clients = [await old.served.connect(), await idle(old), await idle(old)]
            await clients[0].ask("/held")
            await old.served.waits()
            known = [weakref.ref(connection) for connection in old.served.site.state.connections]
            gc.collect()
            gc.disable()
            try:
                begun, giver, task = old.hand_over(queue)
                await until(lambda: giver.given == 2)
                clients[0].close()
                await until(lambda: len(old.served.site.state.connections) == 0)
                old.served.app.go.set()
                await task
                await until(lambda: [ref() for ref in known] == [None] * 3)
                assert begun.oldest() == {}
            finally:
                gc.enable()


async def test_in_progress_moves_after_its_answer(http: str) -> None:
    """A request is finished where it is, its answer does not say close, and then its connection moves."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            client = await old.served.connect()
            await client.ask("/held")
            await old.served.waits()
            _, giver, task = old.hand_over(queue)
            assert await still(task)
            old.served.app.go.set()
            answer = await client.answer()
            assert (answer.body, answer.says_close) == (b"at last", False)
            await task
            assert giver.given == 1
            new.adopt(queue)
            assert await ask(client) == b"ok"


async def test_pipelined_move_after_the_last_answer(http: str) -> None:
    """A connection with queued requests moves only when all of them are answered, in their order."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.send(b"GET /halves HTTP/1.1\r\nHost: a\r\n\r\nGET /held HTTP/1.1\r\nHost: a\r\n\r\n")
            await old.served.waits()
            _, giver, task = old.hand_over(queue)
            old.served.app.go.set()
            old.served.app.go.clear()
            assert (await client.answer()).body == b"halfhalf"
            await turned(old, lambda: old.served.app.begun == 2)
            assert giver.given == 0
            old.served.app.go.set()
            assert (await client.answer()).body == b"at last"
            await task
            assert giver.given == 1


async def test_an_early_answer(http: str) -> None:
    """A connection whose answer is out moves when the rest of its request's body is here."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
            await client.answer()
            _, giver, task = old.hand_over(queue)
            assert await still(task)
            assert old.served.kinds == [ConnectionClass.ANSWERED]
            await client.send(b"half")
            await task
            assert giver.given == 1


async def test_a_head_that_is_not_known(http: str) -> None:
    """A head whose bytes httptools does not tell is completed where it began; then its connection moves."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n" + UPLOAD[:20])
            await old.served.waits()
            _, giver, task = old.hand_over(queue)
            old.served.app.go.set()
            await client.answer()
            if http == "httptools":
                assert await still(task)
                assert giver.given == 0
                await client.send(UPLOAD[20:] + b"body")
                assert (await client.answer()).body == b"body"
            await task
            assert giver.given == 1


async def test_a_head_that_is_not_known_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a head that is not completed in its own time costs its connection, which is counted."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.HALF_READ, Rule(handover=0.1, final=LONG))
    with a_queue() as queue:
        async with working(http="httptools") as old:
            client = await old.served.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + UPLOAD[:20])
            await client.answer()
            begun, giver, task = old.hand_over(queue)
            assert await client.rest() == b""
            client.close()
            await task
            assert (giver.given, begun.closed) == (0, 1)


class Big(App):
    """Answers ``/held`` with more than a slow client's window takes, and less than would make the app wait."""

    async def _held(self, _: Any, __: Any, send: Any) -> None:
        await self._wait()
        headers = [(b"content-length", b"%d" % SIZE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a" * SIZE})


async def test_an_answer_that_has_not_left(http: str) -> None:
    """A connection whose answer is complete and still in this process moves once its last byte has left."""
    with a_queue() as queue:
        async with working(app=Big(), http=http) as old, working(http=http) as new:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(old.served.address)
            client = Client(sock)
            old.served.clients.append(client)
            await until(lambda: old.served.kinds == [ConnectionClass.UNREAD])
            server = old.served.connection.transport
            server.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await client.ask("/held")
            await old.served.waits()
            old.served.app.go.set()
            await until(lambda: old.served.kinds == [ConnectionClass.IDLE])
            assert server.get_write_buffer_size() > 0
            _, giver, task = old.hand_over(queue)
            assert await still(task)
            assert giver.given == 0
            assert len((await client.answer()).body) == SIZE
            await task
            assert giver.given == 1
            new.adopt(queue)
            assert await ask(client) == b"ok"


async def test_a_stream_moves_when_it_is_over(http: str) -> None:
    """A stream that the app ends when it is told leaves a connection that moves."""
    with a_queue() as queue:
        async with working(http=http, told=True) as old, working(http=http) as new:
            client = await old.served.connect()
            await client.ask("/events")
            await client.read_to(b"data: 1\n\n")
            _, giver, task = old.hand_over(queue)
            await client.read_to(b"data: bye\n\n\r\n0\r\n\r\n")
            await task
            assert giver.given == 1
            new.adopt(queue)
            assert await ask(client) == b"ok"


async def test_a_stream_is_hurried(http: str) -> None:
    """A stream that goes on stays until the drain is hurried, and is ended then; it is not counted as closed."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.ask("/events")
            await client.read_to(b"data: 1\n\n")
            begun, giver, task = old.hand_over(queue)
            assert await still(task)
            begun.hurry()
            await client.rest()
            client.close()
            old.served.app.go.set()
            await task
            assert (giver.given, begun.closed) == (0, 0)


async def test_a_websocket_does_not_move(http: str) -> None:
    """A WebSocket is closed with 1012 beside a successor, too, and is not counted as closed."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.dial()
            begun, giver, task = old.hand_over(queue)
            await client.wait_closed()
            await task
            assert (client.close_code, giver.given, begun.closed) == (1012, 0, 0)


async def test_background_task_stays(http: str) -> None:
    """A connection moves from under a task that goes on after its answer; the drain waits for the task."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.ask("/background")
            await client.answer()
            _, giver, task = old.hand_over(queue)
            await turned(old, lambda: giver.given == 1)
            assert await still(task)
            old.served.app.go.set()
            await task
            assert old.served.app.ended == ["done"]


async def test_many_requests_without_a_pause(http: str) -> None:
    """A client that asks again with each answer moves all the same, between two of its requests."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            client = await idle(old)
            _, giver, task = old.hand_over(queue)
            new.adopt(queue)
            for _ in range(50):
                assert await ask(client) == b"ok"
            await task
            assert giver.given == 1
            assert new.served.site.state.total_requests > 0


# No room


async def test_become_final_in_the_middle(http: str) -> None:
    """What waits for room when nobody comes after any more stays, and is ended by its class's final rule."""
    with a_queue() as queue:
        async with working(http=http) as old:
            waiting, busy = await idle(old), await old.served.connect()
            await busy.ask("/held")
            await old.served.waits()
            fill(queue)
            begun, giver, task = old.hand_over(queue)
            assert await still(task)
            assert await ask(waiting) == b"ok"
            begun.become_final(LONG)
            assert await waiting.rest() == b""
            assert (giver.works, giver.given) == (False, 0)
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
    monkeypatch.setattr(connections, "LAST_WORDS", 0.2)
    caplog.set_level(logging.ERROR, "uvicorn.error")
    with a_queue() as queue:
        async with working(http=http) as old:
            quiet, unread = await idle(old), await old.served.connect()
            queue.reader.close()
            begun, giver, task = old.hand_over(queue, timeout=0.5)
            assert await unread.rest() == b""
            unread.close()
            assert await ask(quiet) == b"ok"
            assert (begun.closed, giver.works) == (1, False)
            assert await quiet.rest() == b""
            quiet.close()
            await task
            assert begun.closed == 2


async def test_room_too_late(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What found no room in the whole drain is closed at its end, and counted."""
    monkeypatch.setattr(connections, "LAST_WORDS", 0.2)
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await idle(old)
            filling = fill(queue)
            begun, giver, task = old.hand_over(queue, timeout=0.1)
            assert await client.rest() == b""
            client.close()
            await task
            empty(queue, filling)
            assert (begun.closed, giver.given, queue.waiting()) == (1, 0, 0)


async def test_room_in_time(http: str) -> None:
    """What waited for room goes when there is some, and the drain is over."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await idle(old)
            filling = fill(queue)
            begun, giver, task = old.hand_over(queue)
            assert await ask(client) == b"ok"
            assert await still(task)
            empty(queue, filling)
            await task
            assert (begun.closed, giver.given, queue.waiting()) == (0, 1, 1)


# Nobody comes after


async def final(worker: Worker, queue: AdoptionQueue) -> tuple[connections.Drain, asyncio.Task[None]]:
    """Begin a final drain that reads the queue to its end."""
    begun = connections.Drain(worker.served.site, worker.resting, worker.changed, timeout=LONG, final=True)
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
            _, giver, task = old.hand_over(queue)
            await task
            giver.stop()
            await asks.ask("/")
            _, ending = await final(new, queue)
            answer = await asks.answer()
            assert (answer.body, answer.says_close, await asks.rest()) == (b"ok", True, b"")
            await half.send(UPLOAD[20:] + b"body")
            answer = await half.answer()
            assert (answer.body, answer.says_close, await half.rest()) == (b"body", True, b"")
            asks.close()
            half.close()
            assert await still(ending), "the queue has not ended: another worker may still give"
            queue.writer.close()
            await ending


async def test_idle_adopted_during_a_final_drain(http: str) -> None:
    """An idle connection that arrives in a final drain is closed in order, within the drain's spread."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            client = await idle(old)
            _, giver, task = old.hand_over(queue)
            await task
            giver.stop()
            queue.writer.close()
            begun, ending = await final(new, queue)
            assert await client.rest() == b""
            client.close()
            await ending
            assert begun.closed == 1


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
            await held.ask("/halves")
            await held.read_to(b"half")
            await idle(old)
            begun, giver, task = old.hand_over(queue)
            assert await still(task)
            later = asyncio.Event()
            asyncio.get_running_loop().call_later(0.2, later.set)
            await later.wait()
            ages = begun.oldest()
            assert set(ages) == {ConnectionClass.STREAM, ConnectionClass.IN_PROGRESS}, "the idle one has moved"
            assert all(0.15 < age < 10 for age in ages.values())
            for stream in streams:
                stream.close()
            await until(lambda: len(old.served.site.state.connections) == 1)
            assert set(begun.oldest()) == {ConnectionClass.IN_PROGRESS}
            assert giver.given == 1
            old.served.app.go.set()
            await task
            assert begun.oldest() == {}


async def test_oldest_of_a_changed_class(http: str) -> None:
    """A connection that does something else now has done that since now."""
    async with working(http=http) as old:
        client = await idle(old)
        begun, task = old.drain()
        assert await still(task)
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, later.set)
        await later.wait()
        assert begun.oldest()[ConnectionClass.IDLE] > 0.25
        await client.send(b"GET / HT")
        await until(lambda: ConnectionClass.HALF_READ in begun.oldest())
        assert begun.oldest()[ConnectionClass.HALF_READ] < 0.25
        await client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        await client.answer()
        await client.rest()
        client.close()
        await task
