"""Drains beside a successor: each connection moves as soon as it may, or ends by its class's rule."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from typing import Any

import pytest

from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass, HurriedStreams, Rule
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Client
from tests.worker.drainable_worker import LONG, SIZE, UPLOAD, a_queue, ask, idle, still, turned, working

pytestmark = pytest.mark.usefixtures("loop_factory")


async def test_everything_moves(http: str) -> None:
    """The unread, the idle and the half-read move at once, and the drain is over with nobody closed."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            clients = [await old.served.connect(), await idle(old), await old.served.connect()]
            await clients[2].send(UPLOAD[:20])
            await until(lambda: ConnectionClass.HALF_READ in old.served.kinds)
            begun, sender, task = old.hand_over(queue)
            await task
            assert (sender.given, begun.closed, queue.waiting()) == (3, 0, 3)
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
            known = [weakref.ref(connection) for connection in old.served.site.connections]
            gc.collect()
            gc.disable()
            try:
                begun, sender, task = old.hand_over(queue)
                await until(lambda: sender.given == 2)
                clients[0].reset()
                await until(lambda: len(old.served.site.connections) == 0)
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
            _, sender, task = old.hand_over(queue)
            assert await still(task)
            old.served.app.go.set()
            answer = await client.answer()
            assert (answer.body, answer.says_close) == (b"at last", False)
            await task
            assert sender.given == 1
            new.adopt(queue)
            assert await ask(client) == b"ok"


async def test_pipelined_move_after_the_last_answer(http: str) -> None:
    """A connection with queued requests moves only when all of them are answered, in their order."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.send(b"GET /halves HTTP/1.1\r\nHost: a\r\n\r\nGET /held HTTP/1.1\r\nHost: a\r\n\r\n")
            await old.served.waits()
            _, sender, task = old.hand_over(queue)
            old.served.app.go.set()
            old.served.app.go.clear()
            assert (await client.answer()).body == b"halfhalf"
            await turned(old, lambda: old.served.app.begun == 2)
            assert sender.given == 0
            old.served.app.go.set()
            assert (await client.answer()).body == b"at last"
            await task
            assert sender.given == 1


async def test_an_early_answer(http: str) -> None:
    """A connection whose answer is out moves when the rest of its request's body is here."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
            await client.answer()
            _, sender, task = old.hand_over(queue)
            assert await still(task)
            assert old.served.kinds == [ConnectionClass.ANSWERED]
            await client.send(b"half")
            await task
            assert sender.given == 1


async def test_a_head_that_is_not_known(http: str) -> None:
    """A head whose bytes httptools does not tell is completed where it began; then its connection moves."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n" + UPLOAD[:20])
            await old.served.waits()
            _, sender, task = old.hand_over(queue)
            old.served.app.go.set()
            await client.answer()
            if http == "httptools":
                assert await still(task)
                assert sender.given == 0
                await client.send(UPLOAD[20:] + b"body")
                assert (await client.answer()).body == b"body"
            await task
            assert sender.given == 1


async def test_a_head_that_is_not_known_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a head that is not completed in its own time costs its connection, which is counted."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.HALF_READ, Rule(handover=0.1, final=LONG))
    with a_queue() as queue:
        async with working(http="httptools") as old:
            client = await old.served.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + UPLOAD[:20])
            await client.answer()
            begun, sender, task = old.hand_over(queue)
            assert await client.rest() == b""
            client.close()
            await task
            assert (sender.given, begun.closed) == (0, 1)


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
            _, sender, task = old.hand_over(queue)
            assert await still(task)
            assert sender.given == 0
            assert len((await client.answer()).body) == SIZE
            await task
            assert sender.given == 1
            new.adopt(queue)
            assert await ask(client) == b"ok"


async def test_a_stream_moves_when_it_is_over(http: str) -> None:
    """A stream that the app ends when it is told leaves a connection that moves."""
    with a_queue() as queue:
        async with working(http=http, told=True) as old, working(http=http) as new:
            client = await old.served.connect()
            await client.ask("/events")
            await client.read_to(b"data: 1\n\n")
            _, sender, task = old.hand_over(queue)
            await client.read_to(b"data: bye\n\n\r\n0\r\n\r\n")
            await task
            assert sender.given == 1
            new.adopt(queue)
            assert await ask(client) == b"ok"


async def test_a_stream_is_hurried(http: str) -> None:
    """A stream that goes on stays until the drain is hurried, and is ended then; it is not counted as closed."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.ask("/events")
            await client.read_to(b"data: 1\n\n")
            begun, sender, task = old.hand_over(queue)
            assert await still(task)
            begun.hurry(HurriedStreams.ALL)
            await client.rest()
            client.close()
            old.served.app.go.set()
            await task
            assert (sender.given, begun.closed) == (0, 0)


async def test_a_websocket_does_not_move(http: str) -> None:
    """A WebSocket is closed with 1012 beside a successor, too, and is not counted as closed."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.dial()
            begun, sender, task = old.hand_over(queue)
            await client.wait_closed()
            await task
            assert (client.close_code, sender.given, begun.closed) == (1012, 0, 0)


async def test_background_task_stays(http: str) -> None:
    """A connection moves from under a task that goes on after its answer; the drain waits for the task."""
    with a_queue() as queue:
        async with working(http=http) as old:
            client = await old.served.connect()
            await client.ask("/background")
            await client.answer()
            _, sender, task = old.hand_over(queue)
            await turned(old, lambda: sender.given == 1)
            assert await still(task)
            old.served.app.go.set()
            await task
            assert old.served.app.ended == ["done"]


async def test_many_requests_without_a_pause(http: str) -> None:
    """A client that asks again with each answer moves all the same, between two of its requests."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            client = await idle(old)
            _, sender, task = old.hand_over(queue)
            new.adopt(queue)
            for _ in range(50):
                assert await ask(client) == b"ok"
            await task
            assert sender.given == 1
            assert new.served.site.state.total_requests > 0


async def test_who_pauses_leaves_the_queue_to_others(http: str) -> None:
    """What comes meanwhile waits, or is another's, until the reading goes on; at the queue's end there is nothing."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as paused, working(http=http) as new:
            clients = [await idle(old), await idle(old)]
            adopter = paused.adopt(queue)
            adopter.pause()
            _, _, task = old.hand_over(queue)
            await task
            for _ in range(10):
                await asyncio.sleep(0)
            assert (queue.waiting(), paused.served.kinds) == (2, [])
            taking = new.adopt(queue)
            assert [await ask(client) for client in clients] == [b"ok", b"ok"]
            assert (len(new.served.kinds), paused.served.kinds) == (2, [])
            await taking.stop()
            _, _, task = new.hand_over(queue)
            await task
            adopter.start()
            assert [await ask(client) for client in clients] == [b"ok", b"ok"]
            assert len(paused.served.kinds) == 2
            await adopter.stop()
            adopter.pause()
            adopter.start()
