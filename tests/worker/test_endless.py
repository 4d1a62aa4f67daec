"""Drains of what would go on for ever: WebSockets, the handshakes to them, and streams of events."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect

from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass, HurriedStreams, Rule
from stillup.core.values import replace
from stillup.worker import connection_drain
from tests.asgi.event_loops import until
from tests.worker.drainable_worker import LONG, still, working

pytestmark = pytest.mark.usefixtures("loop_factory")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again soon at what makes no sound."""
    monkeypatch.setattr(connection_drain, "RELOOK", 0.02)


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("ws", ["auto", "websockets-sansio"])
async def test_websocket(http: str, ws: str, *, final: bool) -> None:
    """A WebSocket is closed with 1012, which tells its client to come back."""
    async with working(http=http, ws=ws) as worker:
        client = await worker.dial()
        _, task = worker.drain(final=final)
        await client.wait_closed()
        assert client.close_code == 1012
        await task


async def test_websockets_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two WebSockets one is closed at once and the other later, so that not all come back together."""
    rule = rules.RULES[ConnectionClass.WEBSOCKET]
    monkeypatch.setitem(rules.RULES, ConnectionClass.WEBSOCKET, replace(rule, spread=5 * rule.spread))
    async with working() as worker:
        clients = [await worker.dial(), await worker.dial()]
        begun, task = worker.drain()
        closing = [asyncio.create_task(client.wait_closed()) for client in clients]
        await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
        await worker.served.becomes(ConnectionClass.WEBSOCKET)
        begun.hurry(HurriedStreams.ALL)
        await asyncio.wait(closing)
        assert [client.close_code for client in clients] == [1012, 1012]
        await task


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("ws", ["auto", "websockets-sansio"])
async def test_handshake_that_comes_during_the_drain(
    http: str, ws: str, monkeypatch: pytest.MonkeyPatch, *, final: bool
) -> None:
    """A WebSocket handshake on a connection that was there already is answered, and then closed with 1012."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.UNREAD, Rule(handover=LONG, final=LONG))
    together = replace(rules.RULES[ConnectionClass.WEBSOCKET], spread=0.0, spread_final=0.0)
    monkeypatch.setitem(rules.RULES, ConnectionClass.WEBSOCKET, together)
    async with working(http=http, ws=ws) as worker:
        waiting = await worker.served.connect()
        _, task = worker.drain(final=final)
        client = await connect("ws://localhost/", sock=waiting.sock.dup())
        await client.wait_closed()
        assert client.close_code == 1012
        waiting.close()
        await task


@pytest.mark.parametrize("ws", ["auto", "websockets-sansio"])
async def test_handshake_that_takes_its_time(http: str, ws: str) -> None:
    """A WebSocket that the app has not accepted yet is waited for, and closed with 1012 once it has."""
    async with working(http=http, ws=ws) as worker:
        dialling = asyncio.create_task(worker.dial("/held"))
        await worker.served.waits()
        _, task = worker.drain()
        assert await still(task)
        worker.served.app.go.set()
        client = await dialling
        await client.wait_closed()
        assert client.close_code == 1012
        await task


@pytest.mark.parametrize("final", [False, True])
async def test_stream_is_told(http: str, *, final: bool) -> None:
    """A stream whose app listens to ``draining`` ends by itself, in order, and the drain does not cut it."""
    async with working(http=http, told=True) as worker:
        client = await worker.served.connect()
        await client.ask("/events", "Accept: text/event-stream")
        await client.read_to(b"data: 1\n\n")
        _, task = worker.drain(final=final)
        assert await client.read_to(b"data: bye\n\n") is not None
        client.close()
        await task


async def test_stream_is_hurried(http: str) -> None:
    """A stream that goes on is waited for, until the drain is hurried: then it is ended at once, and nothing else."""
    async with working(http=http) as worker:
        stream, upload = await worker.served.connect(), await worker.served.connect()
        await stream.ask("/events", "Accept: text/event-stream")
        await stream.read_to(b"data: 1\n\n")
        await upload.ask("/upload", "Content-Length: 4", method="POST")
        await until(lambda: ConnectionClass.IN_PROGRESS in worker.served.kinds)
        begun, task = worker.drain()
        assert await still(task)
        assert ConnectionClass.STREAM in worker.served.kinds
        begun.hurry(HurriedStreams.ALL)
        await stream.rest()
        stream.close()
        await upload.send(b"body")
        assert (await upload.answer()).body == b"body"
        upload.close()
        worker.served.app.go.set()
        await task
