"""A close does not cost the answer before it, although the client's next request is on its way already."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from stillup.asgi import lingering_close
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Client, Served, serving

pytestmark = pytest.mark.usefixtures("loop_factory")

SIZE = 300_000
NEXT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linger for longer than a test waits: what ends then has ended for another reason."""
    monkeypatch.setattr(lingering_close, "LINGER", 1000.0)


class Big(App):
    """Answers ``/held`` with more than a slow client takes at once."""

    async def _held(self, _: Any, __: Any, send: Any) -> None:
        await self._wait()
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % SIZE)]}
        await send(head)
        await send({"type": "http.response.body", "body": b"a" * SIZE})


async def _slow_client(served: Served) -> Client:
    """A client with a small window, whose answer waits in the kernel's send buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(served.address)
    client = Client(sock)
    served.clients.append(client)
    await until(lambda: len(served.site.connections) == 1)
    buffered = served.connection.transport.get_extra_info("socket")
    buffered.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    await client.ask("/held")
    await served.waits()
    served.site.announce_close()
    served.app.go.set()
    return client


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_request_that_is_there_at_the_close(http: str) -> None:
    """A next request that has arrived and was not read does not reset the connection under the answer."""
    async with serving(Big(), http=http) as served:
        client = await _slow_client(served)
        await client.send(NEXT)
        assert len((await client.answer()).body) == SIZE


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_request_that_comes_after_the_close(http: str) -> None:
    """Nor does one that comes when the server has closed its side."""
    async with serving(Big(), http=http) as served:
        client = await _slow_client(served)
        await until(lambda: all(kind is None for kind in served.kinds))
        await client.send(NEXT)
        assert len((await client.answer()).body) == SIZE
