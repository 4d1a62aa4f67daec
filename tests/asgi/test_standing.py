"""The contract with uvicorn's parsers: what a connection stands at, in every state, and whether it may move then."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from stillup.core.crossing import MOST_READ, Standing
from stillup.core.values import replace
from tests.asgi.crossing_pair import movable, standing
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Client, Served, serving

pytestmark = pytest.mark.usefixtures("loop_factory")

HEAD = b"POST /upload?a=1 HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\nContent-Length: 4\r\n\r\n"
NOTHING = Standing(
    asked=False, answering=False, streaming=False, event_source=False, arriving=False, head=b"", unsent=0
)
IDLE = Standing(asked=True, answering=False, streaming=False, event_source=False, arriving=False, head=b"", unsent=0)
IN_PROGRESS = Standing(
    asked=True, answering=True, streaming=False, event_source=False, arriving=False, head=b"", unsent=0
)


async def read(served: Served, count: int) -> None:
    """Wait until the server has read so many bytes of a head, or knows no longer which."""
    await until(lambda: standing(served).head is None or len(standing(served).head or b"") == count)


async def asked(client: Client, times: int = 1) -> None:
    for _ in range(times):
        await client.ask("/")
        assert (await client.answer()).body == b"ok"


async def test_unread(http: str) -> None:
    """A connection on which nothing came stands at nothing, and may move."""
    async with serving(http=http) as served:
        await served.connect()
        assert (standing(served), movable(served)) == (NOTHING, True)


async def test_idle(http: str) -> None:
    """After an answer, and after the next, a connection stands at nothing again, and may move."""
    async with serving(http=http) as served:
        client = await served.connect()
        for _ in range(2):
            await asked(client)
            assert (standing(served), movable(served)) == (IDLE, True)


@pytest.mark.parametrize("before", [0, 1])
async def test_half_a_head_at_every_byte(http: str, before: int) -> None:
    """Wherever a head breaks off, also a connection's second, its bytes are those that were sent, and it may move."""
    async with serving(http=http) as served:
        for size in range(1, len(HEAD)):
            client = await served.connect()
            await asked(client, before)
            await client.send(HEAD[:size])
            await read(served, size)
            assert standing(served) == Standing(
                asked=bool(before),
                answering=False,
                streaming=False,
                event_source=False,
                arriving=False,
                head=HEAD[:size],
                unsent=0,
            ), size
            assert movable(served)
            client.close()
            await until(lambda: not served.site.connections)


@pytest.mark.parametrize("before", [0, 1])
async def test_half_a_head_in_many_reads(http: str, before: int) -> None:
    """A head that comes byte by byte is known to each byte, and its request is answered in the end."""
    async with serving(http=http) as served:
        client = await served.connect()
        await asked(client, before)
        for size in range(1, len(HEAD)):
            await client.send(HEAD[size - 1 : size])
            await read(served, size)
            assert (standing(served).head, movable(served)) == (HEAD[:size], True)
        await client.send(HEAD[-1:] + b"body")
        assert (await client.answer()).body == b"body"
        assert standing(served) == IDLE


async def test_a_head_behind_a_request(http: str) -> None:
    """A head that began in one read with the end of the request before: httptools knows no border there, h11 does."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + HEAD[:20])
        assert (await client.answer()).body == b"ok"
        assert standing(served).head == (None if http == "httptools" else HEAD[:20])
        assert movable(served) == (http == "h11")
        await client.send(HEAD[20:30])
        if http == "h11":
            await read(served, 30)
        assert movable(served) == (http == "h11")
        await client.send(HEAD[30:] + b"body")
        assert (await client.answer()).body == b"body"
        assert (standing(served), movable(served)) == (IDLE, True)
        await client.send(HEAD[:20])
        await read(served, 20)
        assert (standing(served).head, movable(served)) == (HEAD[:20], True), "the next one is known again"


async def test_a_head_behind_a_body(http: str) -> None:
    """The same where the request before had a body that came in a read of its own with the next head's beginning."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(HEAD)
        await until(lambda: standing(served).answering)
        await client.send(b"body" + HEAD[:20])
        assert (await client.answer()).body == b"body"
        assert standing(served).head == (None if http == "httptools" else HEAD[:20])
        assert movable(served) == (http == "h11")


async def test_too_long_a_head(http: str) -> None:
    """A head of more than MOST_READ bytes does not move, and its request is answered where it is."""
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * MOST_READ
    async with serving(http=http, h11_max_incomplete_event_size=4 * MOST_READ) as served:
        client = await served.connect()
        await client.send(long[:100])
        await read(served, 100)
        assert movable(served)
        await client.send(long[100:])
        await until(lambda: not movable(served))
        await client.send(b"x" * 100)
        await client.send(b"\r\n\r\n")
        assert (await client.answer()).body == b"ok"
        assert (standing(served), movable(served)) == (IDLE, True)


async def test_in_progress(http: str) -> None:
    """From the end of its head to the end of its answer a request keeps its connection."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/held")
        await served.waits()
        assert (replace(standing(served), head=b""), movable(served)) == (IN_PROGRESS, False)
        served.app.go.set()
        await client.answer()
        assert (standing(served), movable(served)) == (IDLE, True)


async def test_half_answered(http: str) -> None:
    """An answer that has begun keeps its connection until its end."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/halves")
        await client.read_to(b"half")
        assert (replace(standing(served), head=b""), movable(served)) == (replace(IN_PROGRESS, streaming=True), False)


async def test_pipelined(http: str) -> None:
    """A request that is queued behind another keeps its connection after the answer to the first."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(b"GET /halves HTTP/1.1\r\nHost: a\r\n\r\nGET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        await served.waits()
        assert not movable(served)
        served.app.go.set()
        served.app.go.clear()
        assert (await client.answer()).body == b"halfhalf"
        await served.waits(2)
        assert (replace(standing(served), head=b""), movable(served)) == (IN_PROGRESS, False)
        served.app.go.set()
        assert (await client.answer()).body == b"at last"
        assert (standing(served), movable(served)) == (IDLE, True)


async def test_upload(http: str) -> None:
    """A body that is still coming keeps its connection, as its request is in progress."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(HEAD + b"bo")
        await until(lambda: standing(served).answering)
        assert (standing(served).arriving, movable(served)) == (True, False)
        await client.send(b"dy")
        assert (await client.answer()).body == b"body"
        assert (standing(served), movable(served)) == (IDLE, True)


@pytest.mark.parametrize(
    "body", [(b"Content-Length: 8", b"half", b"half"), (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n", b"0\r\n\r\n")]
)
async def test_answered_before_its_body_came(http: str, body: tuple[bytes, bytes, bytes]) -> None:
    """An early answer does not free the connection: only when the rest of the body is here may it move."""
    header, first, rest = body
    async with serving(http=http) as served:
        client = await served.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\n" + first)
        await client.answer()
        found = standing(served)
        assert (found.asked, found.answering, found.arriving) == (True, False, True)
        assert not movable(served)
        await client.send(rest)
        await until(lambda: not standing(served).arriving)
        assert (standing(served), movable(served)) == (IDLE, True)
        await client.send(HEAD[:20])
        await read(served, 20)
        assert (standing(served).head, movable(served)) == (HEAD[:20], True)


class Big(App):
    """Answers ``/held`` with more than a client that reads nothing takes."""

    async def _held(self, _: Any, __: Any, send: Any) -> None:
        size = 8_000_000
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": b"a" * size})
        self.ended.append("done")


async def test_unsent(http: str) -> None:
    """An answer that is complete and has not left keeps its connection, until its last byte has left."""
    async with serving(Big(), http=http) as served:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(served.address)
        client = Client(sock)
        served.clients.append(client)
        await until(lambda: len(served.site.connections) == 1)
        await client.ask("/held")
        await until(lambda: standing(served).unsent > 0 and not standing(served).answering)
        assert not movable(served)
        seen: list[bool] = []
        served.connection.hear_when_sent()
        served.connection.follow(lambda _: seen.append(movable(served)))
        assert len((await client.answer()).body) == 8_000_000
        await until(lambda: seen)
        assert seen[-1]
        assert standing(served) == IDLE


async def test_stream(http: str) -> None:
    """A stream of events says what it is while it goes on, keeps its connection, and frees it by its end."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/events")
        await client.read_to(b"data: 1\n\n")
        found = standing(served)
        assert (found.answering, movable(served)) == (True, False)
        assert (found.streaming, found.event_source) == (True, True)
        served.app.go.set()
        await client.read_to(b"data: bye\n\n\r\n0\r\n\r\n")
        assert (standing(served), movable(served)) == (IDLE, True)


async def test_background_task(http: str) -> None:
    """What an app does after its answer keeps no connection."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/background")
        await client.answer()
        await served.waits()
        assert len(served.site.state.tasks) == 1
        assert (standing(served), movable(served)) == (IDLE, True)


async def test_an_upgrade_that_is_ignored(http: str) -> None:
    """A request that would go on as h2c is answered as HTTP/1.1 by uvicorn; its connection may move after it."""
    async with serving(http=http) as served:
        client = await served.connect()
        for _ in range(2):
            await client.ask("/", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk")
            assert (await client.answer()).body == b"ok"
            assert (standing(served), movable(served)) == (IDLE, True)
        await client.send(HEAD[:20])
        await read(served, 20)
        assert (standing(served).head, movable(served)) == (HEAD[:20], True)


async def test_line_ends_before_a_head() -> None:
    """Empty lines before a head, which httptools passes over, are nothing that has to move."""
    async with serving(http="httptools") as served:
        client = await served.connect()
        for first in (b"\r\n", b"\r\n\r\n", b"\r"):
            await client.send(first)
            await client.send(HEAD[:20])
            await until(lambda: (standing(served).head or b"").endswith(HEAD[:20]))
            assert movable(served)
            await client.send(HEAD[20:] + b"body")
            assert (await client.answer()).body == b"body"
            assert (standing(served), movable(served)) == (IDLE, True)


async def test_last_words(http: str) -> None:
    """A client has said that its request is the last when it is HTTP/1.0 or says close, and all of it is here."""
    async with serving(http=http) as served:
        for head, last in (
            (b"GET /held HTTP/1.0\r\n\r\n", True),
            (b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", True),
            (b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n", False),
            (b"POST /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbo", False),
        ):
            client = await served.connect()
            assert not served.connection.said_last()
            await client.send(head)
            await until(lambda: standing(served).answering)
            assert served.connection.said_last() == last, head
            client.reset()
            await until(lambda: not served.site.connections)


async def test_a_connection_that_ends(http: str) -> None:
    """A connection that closes, or is not made yet, stands at nothing at all."""
    async with serving(http=http) as served:
        await served.connect()
        connection = served.connection
        connection.transport.close()
        assert connection.standing() is None


async def test_who_can_move(http: str) -> None:
    """A site of uvicorn's own parsers over plain TCP can move its connections."""
    async with serving(http=http) as served:
        assert served.site.can_move
