"""Requests that end in another way than most: the client shuts down writing, or asks for an upgrade beside a body."""

from __future__ import annotations

import socket

import pytest

from stillup.asgi import lingering_close
from tests.asgi.event_loops import until
from tests.asgi.served_app import serving

pytestmark = pytest.mark.usefixtures("loop_factory")
H2C = ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk")


@pytest.mark.parametrize(("path", "length"), [("/held", 0), ("/upload", 4)])
async def test_half_closed(http: str, monkeypatch: pytest.MonkeyPatch, path: str, length: int) -> None:
    """A client that shuts down writing after its request is answered, and its connection ends then."""
    monkeypatch.setattr(lingering_close, "LINGER", 1000.0)
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask(path, f"Content-Length: {length}", method="POST")
        if length:
            await client.send(b"body")
        else:
            await served.waits()
        client.sock.shutdown(socket.SHUT_WR)
        served.app.go.set()
        rest = await client.rest()
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert rest.endswith({"/held": b"at last", "/upload": b"body"}[path])
        await until(lambda: not served.site.connections)


async def test_half_closed_in_an_answer(http: str) -> None:
    """A client that shuts down writing when its answer has begun has most likely left: as with uvicorn, it has."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/halves")
        await client.read_to(b"half")
        client.sock.shutdown(socket.SHUT_WR)
        assert await client.rest() == b""
        await until(lambda: not served.site.connections)


async def test_half_closed_between_requests(http: str) -> None:
    """A client that shuts down writing when nothing is under way has left."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/")
        await client.answer()
        client.sock.shutdown(socket.SHUT_WR)
        assert await client.rest() == b""
        await until(lambda: not served.site.connections)


async def test_half_a_request(http: str) -> None:
    """A client that shuts down writing in the middle of its request gets no answer to it."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/upload", "Content-Length: 8", method="POST")
        await client.send(b"body")
        client.sock.shutdown(socket.SHUT_WR)
        assert await client.rest() == b""
        await until(lambda: not served.site.connections)


async def test_who_listens_for_the_end_is_told(http: str) -> None:
    """An app that waits for its client to leave hears of it, though the client may only have shut down writing."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/listens")
        await served.waits()
        client.close()
        await until(lambda: served.app.ended == ["http.disconnect"])
        await until(lambda: not served.site.connections)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("apart", [False, True])
async def test_an_upgrade_with_a_body(http: str, *, chunked: bool, apart: bool) -> None:
    """The app is given the whole body, or the request is refused; the body is never taken for the next request."""
    inner = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"
    size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(inner)}"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner) if chunked else inner
    async with serving(http=http) as served:
        client = await served.connect()
        head = "\r\n".join(("POST /upload HTTP/1.1", "Host: a", *H2C, size)).encode() + b"\r\n\r\n"
        if apart:
            await client.send(head)
            await until(lambda: served.site.connections)
            await client.send(body)
        else:
            await client.send(head + body)
        answer = await client.answer()
        assert (answer.status, answer.body) in ((200, inner), (400, b"An upgrade with a body is not served."))
        assert (answer.status == 200) == (http == "h11")
        client.close()
        await until(lambda: not served.site.connections)
        assert served.app.begun == 0
