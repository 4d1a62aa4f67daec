"""Fact 4 of ``asgi.uvicorn_adapter``: what a connection of uvicorn's is doing can be told from its protocol."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from stillup.asgi.connection import Connection
from stillup.core.drain import ConnectionClass
from stillup.host.sources import Arrival
from tests.asgi.event_loops import until
from tests.asgi.served_app import Served, serving

pytestmark = pytest.mark.usefixtures("loop_factory")

UPLOAD = "Content-Length: 8"


def _asked(connection: Connection) -> bool:
    found = connection.standing()
    assert found is not None
    return found.asked


async def test_unread(http: str) -> None:
    """A connection that was accepted and has sent nothing is UNREAD, and was never asked."""
    async with serving(http=http) as served:
        await served.connect()
        assert served.kinds == [ConnectionClass.UNREAD]
        assert not _asked(served.connection)


@pytest.mark.parametrize("head", [b"G", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"])
async def test_half_read(http: str, head: bytes) -> None:
    """From its first byte to the last but one a request's head makes its connection HALF_READ; it was never asked."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(head)
        await served.becomes(ConnectionClass.HALF_READ)
        assert not _asked(served.connection)


async def test_in_progress(http: str) -> None:
    """From the end of a request's head until its answer is out the connection is IN_PROGRESS, and it was asked."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/held")
        await served.waits()
        assert served.kinds == [ConnectionClass.IN_PROGRESS]
        assert _asked(served.connection)
        served.app.go.set()
        assert (await client.answer()).body == b"at last"
        assert served.kinds == [ConnectionClass.IDLE]


async def test_half_answered(http: str) -> None:
    """A connection whose answer has begun and goes on is a STREAM, whatever its type."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/halves")
        await client.read_to(b"half")
        assert served.kinds == [ConnectionClass.STREAM]


async def test_upload(http: str) -> None:
    """A connection whose request's body is half sent is IN_PROGRESS, though its head is long complete."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/upload", UPLOAD, method="POST")
        await client.send(b"half")
        await until(lambda: served.kinds == [ConnectionClass.IN_PROGRESS] and not served.connection.cycle.body)
        await client.send(b"half")
        assert (await client.answer()).body == b"halfhalf"
        assert served.kinds == [ConnectionClass.IDLE]


async def test_answered_before_its_body_came(http: str) -> None:
    """A connection whose answer is out while the body still comes is ANSWERED, and then IDLE."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/", UPLOAD, method="POST")
        await client.send(b"half")
        await client.answer()
        assert served.kinds == [ConnectionClass.ANSWERED]
        await client.send(b"half")
        await served.becomes(ConnectionClass.IDLE)


async def test_next_head_half_read(http: str) -> None:
    """An IDLE connection on which the next head begins becomes HALF_READ, then IN_PROGRESS, and IDLE once more."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/")
        await client.answer()
        assert served.kinds == [ConnectionClass.IDLE]
        await client.send(b"GET /held HTTP/1.1\r\nHo")
        await served.becomes(ConnectionClass.HALF_READ)
        assert _asked(served.connection)
        await client.send(b"st: localhost\r\n\r\n")
        await served.becomes(ConnectionClass.IN_PROGRESS)
        served.app.go.set()
        await client.answer()
        assert served.kinds == [ConnectionClass.IDLE]


async def test_stream(http: str) -> None:
    """An answer of server-sent events makes its connection a STREAM until it has ended, whatever was asked for."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/events")
        await client.read_to(b"data: 1\n\n")
        assert served.kinds == [ConnectionClass.STREAM]
        served.app.go.set()
        await client.read_to(b"data: bye\n\n\r\n0\r\n\r\n")
        assert served.kinds == [ConnectionClass.IDLE]
        await client.ask("/")
        await client.answer()
        assert served.kinds == [ConnectionClass.IDLE]


async def test_no_stream(http: str) -> None:
    """A request that accepts server-sent events and is not answered yet is IN_PROGRESS."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/held", "Accept: text/event-stream")
        await served.waits()
        assert served.kinds == [ConnectionClass.IN_PROGRESS]


async def test_pipelined(http: str) -> None:
    """A pipelined request keeps its connection IN_PROGRESS after the answer to the first, and gets its own answer."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\nGET /halves HTTP/1.1\r\nHost: a\r\n\r\n")
        await served.waits()
        assert served.kinds == [ConnectionClass.IN_PROGRESS]
        served.app.go.set()
        assert (await client.answer()).body == b"at last"
        assert (await client.answer()).body == b"halfhalf"
        assert served.kinds == [ConnectionClass.IDLE]


async def test_pipelined_half_read(http: str) -> None:
    """Half a head behind a whole request leaves its connection HALF_READ after the answer, not IDLE."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHo")
        await served.waits()
        assert served.kinds == [ConnectionClass.IN_PROGRESS]
        served.app.go.set()
        await client.answer()
        assert served.kinds == [ConnectionClass.HALF_READ]
        await client.send(b"st: a\r\n\r\n")
        assert (await client.answer()).body == b"ok"


async def test_closing(http: str) -> None:
    """A connection that is closed on this side has no class, though its client has not closed yet."""
    async with serving(http=http) as served:
        client = await served.connect()
        await served.becomes(ConnectionClass.UNREAD)
        for connection in served.site.connections:
            connection.transport.close()
        assert await client.rest() == b""
        assert served.kinds in ([None], [])  # until it is told that its client has seen it
        client.close()
        await until(lambda: not served.site.connections)


async def test_not_connected_yet(http: str) -> None:
    """A protocol that has no transport yet has no class."""
    async with serving(http=http) as served:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert served.site.protocol({}, Arrival(ours, "web", unix=True)).kind() is None


class Stranger(asyncio.Protocol):
    """A protocol of somebody else's, as ``--http module:Class`` allows."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any]) -> None:
        self.connections = server_state.connections
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)


async def test_other() -> None:
    """A connection of a protocol that is none of uvicorn's is OTHER."""
    async with serving(http=Stranger) as served:
        await served.connect()
        assert served.kinds == [ConnectionClass.OTHER]


@pytest.fixture(params=["auto", "websockets-sansio", "websockets", "wsproto"])
def ws(request: pytest.FixtureRequest) -> str:
    """Each of uvicorn's WebSocket implementations, where its library is installed."""
    name: str = request.param
    pytest.importorskip(name.partition("-")[0] if name != "auto" else "websockets")
    return name


def dial(served: Served, path: str = "/") -> connect:
    host, port = served.address
    return connect(f"ws://{host}:{port}{path}")


async def echoes(client: ClientConnection) -> None:
    await client.send("hello")
    assert await client.recv() == "hello"


async def test_websocket(http: str, ws: str) -> None:
    """After its handshake a connection is a WEBSOCKET, one of one, and shutdown() closes it with 1012."""
    async with serving(http=http, ws=ws) as served, dial(served) as client:
        await echoes(client)
        assert served.kinds == [ConnectionClass.WEBSOCKET]
        served.connection.shutdown()
        await client.wait_closed()
        assert client.close_code == 1012
        await until(lambda: not served.site.connections)


async def test_upgrading(http: str, ws: str) -> None:
    """A WebSocket that its app has not accepted yet is UPGRADING: shutdown() would refuse it."""
    async with serving(http=http, ws=ws) as served:
        dialling = asyncio.ensure_future(dial(served, "/held").__aenter__())
        await served.waits()
        assert served.kinds == [ConnectionClass.UPGRADING]
        served.app.go.set()
        client = await dialling
        await echoes(client)
        assert served.kinds == [ConnectionClass.WEBSOCKET]
        await client.close()


async def test_websocket_after_the_announcement(http: str, ws: str) -> None:
    """A handshake that arrives after announce_close still makes a WebSocket, which 1012 can end."""
    async with serving(http=http, ws=ws) as served:
        served.site.announce_close()
        async with dial(served) as client:
            await echoes(client)
            assert served.kinds == [ConnectionClass.WEBSOCKET]
            served.connection.shutdown()
            await client.wait_closed()
            assert client.close_code == 1012


async def test_refused_handshake(http: str, ws: str) -> None:
    """A handshake that is none is answered with an error and its connection ends, whatever still comes on it."""
    async with serving(http=http, ws=ws) as served:
        client = await served.connect()
        await client.ask("/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        status = int((await client.read_to(b"\r\n")).split()[1])
        assert 400 <= status < 500
        await client.rest()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert served.kinds == [None]
        client.close()
        await until(lambda: not served.site.connections)
