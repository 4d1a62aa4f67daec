"""Drains of real connections: each class is waited for and ended by its rule; endless answers are in test_endless."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from stillup.asgi import lingering_close
from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass, Rule
from stillup.core.values import replace
from stillup.worker import connection_drain
from stillup.worker.connection_count import count
from tests.asgi.event_loops import until
from tests.asgi.served_app import Client
from tests.worker.drainable_worker import LONG, idle, still, working

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
        begun, task = worker.drain(final=final)
        assert await still(task)
        worker.served.app.go.set()
        answer = await client.answer()
        assert (answer.body, answer.says_close, await client.rest()) == (b"at last", True, b"")
        client.close()
        await task
        assert (begun.closed, begun.told_to_close) == (0, 1)


async def test_in_progress_at_the_deadline(
    http: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that outlasts the drain is cancelled, its connection ends, and the log says what was ended."""
    monkeypatch.setattr(connection_drain, "LAST_WORDS", 0.1)
    caplog.set_level(logging.WARNING, "uvicorn.error")
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask("/held")
        await worker.served.waits()
        _, task = worker.drain(timeout=0.1)
        await client.rest()
        await task
        assert worker.served.app.ended == ["CancelledError"]
        assert not worker.served.site.connections
        said = re.search(r"drain ended 1 in-progress after (\d+\.\d) s", caplog.text)
        assert said is not None
        assert float(said[1]) >= 0.1


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
async def test_head_in_time(http: str, head: bytes, monkeypatch: pytest.MonkeyPatch, *, final: bool) -> None:
    """A connection that was not read, or half its head, when the drain began gets its answer if the rest comes."""
    kind = ConnectionClass.HALF_READ if head else ConnectionClass.UNREAD
    monkeypatch.setitem(rules.RULES, kind, Rule(handover=LONG, final=LONG))
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.send(head)
        await worker.served.becomes(kind)
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
        await until(lambda: not worker.served.site.connections)
        assert await count(worker.served.site, worker.idle) == {"background": 1}
        _, task = worker.drain()
        assert await still(task)
        worker.served.app.go.set()
        await task
        assert worker.served.app.ended == ["done"]


async def test_background_task_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app does after its answer is cancelled when the drain's time is over."""
    monkeypatch.setattr(connection_drain, "LAST_WORDS", 0.1)
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
        begun.shorten(LONG, final=True)
        assert begun.final
        assert await client.rest() == b""
        client.close()
        await task


@pytest.mark.parametrize(("first", "second"), [(0.1, LONG), (LONG, 0.1)])
async def test_become_final_ends_in_time(
    http: str, monkeypatch: pytest.MonkeyPatch, first: float, second: float
) -> None:
    """A drain that becomes final ends no later than it would have, and no later than the time that it is given then."""
    monkeypatch.setattr(connection_drain, "LAST_WORDS", 0.1)
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask("/held")
        await worker.served.waits()
        begun, task = worker.drain(timeout=first)
        begun.shorten(second, final=True)
        await task
        assert worker.served.app.ended == ["CancelledError"]


async def test_head_that_begins_late(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that begins late in a drain has its own time from then on, whatever makes the drain look at it."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.HALF_READ, Rule(handover=20.0, final=20.0))
    async with working(http=http) as worker:
        client, other = await idle(worker), await idle(worker)
        _, task = worker.drain()
        assert await still(task)
        worker.pass_time(30.0)
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
        begun.shorten(LONG, final=True)
        for connection in list(worker.served.site.connections):
            begun._look(connection)  # in this turn of the loop, in which nobody has heard of the resets
        await task


async def test_cut_short(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that is cut short ends everything at once, whatever it is doing."""
    monkeypatch.setattr(connection_drain, "LAST_WORDS", 0.1)
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
    monkeypatch.setattr(connection_drain, "LAST_WORDS", 0.1)
    async with working(http=http) as worker:
        await idle(worker)
        _, task = worker.drain(timeout=0.05)
        await task
        await until(lambda: not worker.served.site.connections)


async def test_a_stop_with_idle_clients_takes_little_longer(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that keep their side open, idle or silent, cost a stop less than half a second, not LINGER seconds.

    It is counted in ticks: while the machine stands still there is none.
    """
    monkeypatch.setattr(lingering_close, "LINGER", 1000.0)
    async with working(http=http) as worker:
        clients = [await idle(worker) for _ in range(20)]
        clients += [await worker.served.connect() for _ in range(20)]
        await until(lambda: len(worker.served.kinds) == 40)
        for connection in worker.served.site.connections:
            assert connection.made is not None
            connection.made -= 10.0  # they came long ago
        begun, task = worker.drain(final=True)
        ticks = 0
        while not (await asyncio.wait([task], timeout=0.01))[0]:
            ticks += 1
        assert ticks < 50
        assert begun.closed == 40
        for client in clients:
            assert await client.rest() == b""


async def test_a_busy_client_is_told_at_a_stop(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that asks again every 20 ms, and was idle when the stop began, is told with an answer, not by the close.

    Which waits 20 times as long as it does by itself: a machine may stand still for all of that.
    """
    rule = rules.RULES[ConnectionClass.IDLE]
    assert rule.final is not None
    monkeypatch.setitem(rules.RULES, ConnectionClass.IDLE, replace(rule, final=20 * rule.final))
    async with working(http=http) as worker:
        clients = [await idle(worker) for _ in range(8)]
        _, task = worker.drain(final=True)

        async def ask_on(client: Client, think: float) -> None:
            says_close = False
            while not says_close:
                await asyncio.sleep(think)
                await client.ask("/")
                says_close = (await client.answer()).says_close
            client.close()

        await asyncio.gather(*(ask_on(client, 0.02 + 0.01 * place) for place, client in enumerate(clients)))
        await task


async def test_closing_is_waited_for(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closing already is in no class, and the drain is over when it has closed."""
    monkeypatch.setattr(lingering_close, "LINGER", 1000.0)
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.send(b"GET / HT")  # in the middle of something, its client is lingered for
        await worker.served.becomes(ConnectionClass.HALF_READ)
        for connection in worker.served.site.connections:
            connection.transport.close()
        await worker.served.becomes(None)
        assert await count(worker.served.site, worker.idle) == {}
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
        assert await count(worker.served.site, worker.idle) == {
            "idle": 2,
            "unread": 1,
            "in-progress": 1,
            "websocket": 1,
            "background": 1,
        }
        first.close()
        await websocket.close()
        await until(lambda: len(worker.served.kinds) == 3 and len(worker.served.site.state.tasks) == 2)
        assert await count(worker.served.site, worker.idle) == {
            "idle": 1,
            "unread": 1,
            "in-progress": 1,
            "background": 1,
        }
