"""Drains of real connections: each class is waited for and ended by its rule; endless answers are in test_endless."""

from __future__ import annotations

import asyncio
import logging

import pytest

from supervisor.core import drain as rules
from supervisor.core.drain import ConnectionClass, Rule
from supervisor.worker import connections
from supervisor.worker.connections import count
from tests.asgi.running import until
from tests.worker.working import LONG, idle, still, working

pytestmark = pytest.mark.usefixtures("loop_factory")


async def test_nothing_left(http: str) -> None:
    """A drain of nothing is over at once."""
    async with working(http=http) as worker:
        _, task = worker.drain()
        await task


@pytest.mark.parametrize("final", [False, True])
async def test_in_progress_is_finished(http: str, *, final: bool) -> None:
    """A request that is being answered gets its whole answer, as the last one, before the drain is over."""
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask("/held")
        await worker.served.waits()
        _, task = worker.drain(final=final)
        assert await still(task)
        worker.served.app.go.set()
        answer = await client.answer()
        assert (answer.body, answer.says_close, await client.rest()) == (b"at last", True, b"")
        client.close()
        await task


async def test_in_progress_at_the_deadline(
    http: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that outlasts the drain is cancelled, its connection ends, and the log says what was ended."""
    monkeypatch.setattr(connections, "LAST_WORDS", 0.1)
    caplog.set_level(logging.WARNING, "uvicorn.error")
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask("/held")
        await worker.served.waits()
        _, task = worker.drain(timeout=0.1)
        await client.rest()
        await task
        assert worker.served.app.ended == ["CancelledError"]
        assert not worker.served.site.state.connections
        assert "drain ended 1 in-progress after 0.1 s" in caplog.text


async def test_idle_is_kept_when_somebody_takes_over(http: str) -> None:
    """With a new generation beside it an idle connection stays, and the answer to its next request is its last."""
    async with working(http=http) as worker:
        client = await idle(worker)
        _, task = worker.drain()
        assert await still(task)
        await client.ask("/")
        assert (await client.answer()).says_close
        assert await client.rest() == b""
        client.close()
        await task


async def test_idle_is_closed_when_nobody_takes_over(http: str) -> None:
    """With nobody to come after, an idle connection is closed at once."""
    async with working(http=http) as worker:
        client = await idle(worker)
        _, task = worker.drain(final=True)
        assert await client.rest() == b""
        client.close()
        await task


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("head", [b"", b"GET / HT"])
async def test_head_in_time(http: str, head: bytes, *, final: bool) -> None:
    """A connection that was not read, or half its head, when the drain began gets its answer if the rest comes."""
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.send(head)
        await worker.served.becomes(ConnectionClass.HALF_READ if head else ConnectionClass.UNREAD)
        _, task = worker.drain(final=final)
        assert await still(task)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[len(head) :])
        assert (await client.answer()).says_close
        assert await client.rest() == b""
        client.close()
        await task


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("head", [b"", b"GET / HT"])
async def test_head_too_late(http: str, head: bytes, monkeypatch: pytest.MonkeyPatch, *, final: bool) -> None:
    """Such a connection on which nothing more comes is closed when its own time is over, not the drain's."""
    kind = ConnectionClass.HALF_READ if head else ConnectionClass.UNREAD
    monkeypatch.setitem(rules.RULES, kind, Rule(handover=0.1, final=0.1))
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.send(head)
        await worker.served.becomes(kind)
        _, task = worker.drain(final=final)
        assert await client.rest() == b""
        client.close()
        await task


async def test_answered_while_its_body_comes() -> None:
    """With nobody to come after, a connection whose answer is out is closed though its body still comes."""
    async with working(http="h11") as worker:
        client = await worker.served.connect()
        await client.ask("/", "Content-Length: 8", method="POST")
        await client.answer()
        assert worker.served.kinds == [ConnectionClass.ANSWERED]
        _, task = worker.drain(final=True)
        assert await client.rest() == b""
        client.close()
        await task


async def test_background_task_is_waited_for(http: str) -> None:
    """What an app does after its answer is waited for, though its connection has gone, and then the drain is over."""
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask("/background")
        await client.answer()
        client.close()
        await until(lambda: not worker.served.site.state.connections)
        assert await count(worker.served.site, worker.resting) == {"background": 1}
        _, task = worker.drain()
        assert await still(task)
        worker.served.app.go.set()
        await task
        assert worker.served.app.ended == ["done"]


async def test_background_task_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app does after its answer is cancelled when the drain's time is over."""
    monkeypatch.setattr(connections, "LAST_WORDS", 0.1)
    async with working() as worker:
        client = await worker.served.connect()
        await client.ask("/background")
        await client.answer()
        _, task = worker.drain(timeout=0.05)
        await task
        assert worker.served.app.ended == ["CancelledError"]


async def test_task_that_becomes_idle(http: str) -> None:
    """In a final drain a connection whose answer promised to go on is closed as soon as that answer is out."""
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask("/halves")
        await client.read_to(b"half")
        _, task = worker.drain(final=True)
        assert await still(task)
        worker.served.app.go.set()
        assert await client.rest() == b"half"
        client.close()
        await task


async def test_become_final(http: str) -> None:
    """A drain that becomes final closes what it kept for as long as somebody took over."""
    async with working(http=http) as worker:
        client = await idle(worker)
        begun, task = worker.drain()
        assert await still(task)
        assert not begun.final
        begun.become_final(LONG)
        assert begun.final
        assert await client.rest() == b""
        client.close()
        await task


@pytest.mark.parametrize(("first", "second"), [(0.1, LONG), (LONG, 0.1)])
async def test_become_final_ends_in_time(
    http: str, monkeypatch: pytest.MonkeyPatch, first: float, second: float
) -> None:
    """A drain that becomes final ends no later than it would have, and no later than the time that it is given then."""
    monkeypatch.setattr(connections, "LAST_WORDS", 0.1)
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask("/held")
        await worker.served.waits()
        begun, task = worker.drain(timeout=first)
        begun.become_final(second)
        await task
        assert worker.served.app.ended == ["CancelledError"]


async def test_head_that_begins_late(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that begins late in a drain has its own time from then on, whatever makes the drain look at it."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.HALF_READ, Rule(handover=0.2, final=0.2))
    async with working(http=http) as worker:
        client, other = await idle(worker), await idle(worker)
        _, task = worker.drain()
        await asyncio.wait([task], timeout=0.3)
        await client.send(b"GET / HT")
        await until(lambda: ConnectionClass.HALF_READ in worker.served.kinds)
        other.close()
        await until(lambda: len(worker.served.kinds) == 1)
        assert await still(task)
        await client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).says_close
        client.close()
        await task


async def test_reset_while_idle(http: str) -> None:
    """A client that has reset its connection just before it would be closed does not stop the drain."""
    async with working(http=http) as worker:
        clients = [await idle(worker), await idle(worker)]
        begun, task = worker.drain()
        assert await still(task)
        for client in clients:
            client.reset()
        begun.become_final(LONG)
        for connection in list(worker.served.site.state.connections):
            begun._look(connection)  # in this turn of the loop, in which nobody has heard of the resets
        await task


async def test_cut_short(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that is cut short ends everything at once, whatever it is doing."""
    monkeypatch.setattr(connections, "LAST_WORDS", 0.1)
    async with working(http=http) as worker:
        clients = [await idle(worker), await worker.served.connect(), await worker.served.connect()]
        await clients[1].ask("/held")
        await clients[2].ask("/events", "Accept: text/event-stream")
        await worker.served.waits(2)
        begun, task = worker.drain()
        assert await still(task)
        begun.cut_short()
        for client in clients:
            await client.rest()
        await task
        assert worker.served.app.ended == ["CancelledError"] * 2


async def test_last_words(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not close its side is broken off soon after the deadline, not LINGER seconds later."""
    monkeypatch.setattr(connections, "LAST_WORDS", 0.1)
    async with working(http=http) as worker:
        await idle(worker)
        _, task = worker.drain(timeout=0.05)
        await task
        await until(lambda: not worker.served.site.state.connections)


async def test_closing_is_waited_for(http: str) -> None:
    """A connection that is closing already is in no class, and the drain is over when it has closed."""
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await worker.served.becomes(ConnectionClass.UNREAD)
        for connection in worker.served.site.state.connections:
            connection.transport.close()
        await worker.served.becomes(None)
        assert await count(worker.served.site, worker.resting) == {}
        _, task = worker.drain(final=True)
        assert await still(task)
        client.close()
        await task


async def test_count(http: str) -> None:
    """Connections are counted by class; a request whose answer is out and whose task runs is ``background`` besides."""
    async with working(http=http) as worker:
        first = await idle(worker)
        await worker.served.connect()
        held, after = await worker.served.connect(), await worker.served.connect()
        await held.ask("/held")
        await after.ask("/background")
        await after.answer()
        websocket = await worker.dial()
        await worker.served.waits(2)
        assert await count(worker.served.site, worker.resting) == {
            "idle": 2,
            "unread": 1,
            "in-progress": 1,
            "websocket": 1,
            "background": 1,
        }
        first.close()
        await websocket.close()
        await until(lambda: len(worker.served.kinds) == 3 and len(worker.served.site.state.tasks) == 2)
        assert await count(worker.served.site, worker.resting) == {
            "idle": 1,
            "unread": 1,
            "in-progress": 1,
            "background": 1,
        }
