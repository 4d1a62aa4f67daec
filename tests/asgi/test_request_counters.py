"""What is counted of requests and their answers, on both of uvicorn's parsers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import pytest
from uvicorn.server import ServerState
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from stillup.core.drain import ConnectionClass
from stillup.wire import figure_cells
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Client, Served, serving

pytestmark = pytest.mark.usefixtures("loop_factory")


class Answering(App):
    """Answers with what the path says."""

    async def _status(self, scope: Any, _: Any, send: Any) -> None:
        status = int(scope["query_string"])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def _chunks(self, _: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"transfer-encoding", b"chunked")]})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        await send({"type": "http.response.body"})

    async def _large(self, _: Any, __: Any, send: Any) -> None:
        """Give more than fits between a server and a client that does not read."""
        body = b"b" * (32 << 20)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _fails(self, *_: Any) -> None:
        raise LookupError

    async def _breaks(self, _: Any, __: Any, send: Any) -> None:
        """Fail in the middle of an answer."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError

    async def _silent(self, *_: Any) -> None:
        return

    async def _twice(self, _: Any, __: Any, send: Any) -> None:
        """Say more than there is to say."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/fails":
            raise LookupError
        if scope["path"] == "/denied":
            await send({"type": "websocket.http.response.start", "status": 302, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b""})
            return
        if scope["path"] == "/refused":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})


def counts(served: Served) -> dict[str, int]:
    """Requests by the class of their answer, those that there are; and those whose answer was cut off."""
    cells = list(served.site.cells)
    found = {status: figure_cells.answers(status).count(cells) for status in figure_cells.CLASSES}
    found["cut off"] = cells[figure_cells.CUT_OFF]
    return {name: count for name, count in found.items() if count}


async def become(served: Served, **expected: int) -> None:
    """Wait until that is what was counted."""
    names = {"s101": "1xx", "s200": "2xx", "s300": "3xx", "s400": "4xx", "s500": "5xx", "cut": "cut off"}
    wanted = {names.get(name, name): count for name, count in expected.items()}
    await until(lambda: counts(served) == wanted)


async def test_statuses(http: str) -> None:
    """Each answer is counted in the class of its status, once it has begun."""
    async with serving(Answering(), http=http) as served:
        client = await served.connect()
        for status in (200, 204, 301, 404, 410, 503):
            await client.ask(f"/status?{status}")
            await client.read_to(b"\r\n\r\n")
        assert counts(served) == {"2xx": 2, "3xx": 1, "4xx": 2, "5xx": 1}
        await client.ask("/held")
        await served.waits()
        assert counts(served) == {"2xx": 2, "3xx": 1, "4xx": 2, "5xx": 1}
        served.app.go.set()
        await client.answer()
        assert counts(served) == {"2xx": 3, "3xx": 1, "4xx": 2, "5xx": 1}
        assert figure_cells.answers("2xx").seconds(list(served.site.cells)) > 0


async def test_a_full_site_is_not_the_apps_error(http: str) -> None:
    """503 at --limit-concurrency counts as an answer, and not as one of the app's; one that the app gives does."""
    async with serving(Answering(), http=http, limit_concurrency=2) as served:
        client = await served.connect()
        await client.ask("/status?503")
        await client.answer()
        others = [await served.connect() for _ in range(2)]
        await others[-1].ask("/status?200")
        assert (await others[-1].read_to(b"\r\n")).split()[1] == b"503"
        assert counts(served) == {"5xx": 2}
        said = figure_cells.answers_of_app(served.site.cells)
        assert (said.errors, said.requests) == (1, 1)


async def test_bytes(http: str) -> None:
    """The bytes of bodies are counted as the app takes and gives them, however many pieces they come in."""
    async with serving(Answering(), http=http) as served:
        cells = served.site.cells
        client = await served.connect()
        await client.ask("/chunks")
        await client.read_to(b"\r\n0\r\n\r\n")
        assert (cells[figure_cells.SENT], cells[figure_cells.RECEIVED]) == (15, 0)
        await client.ask("/upload", "Content-Length: 200000", method="POST")
        await client.send(b"a" * 200_000)
        assert len((await client.answer()).body) == 200_000
        assert (cells[figure_cells.SENT], cells[figure_cells.RECEIVED]) == (200_015, 200_000)
        assert counts(served) == {"2xx": 2}


async def test_what_a_client_has_seen_was_counted(http: str) -> None:
    """Before an answer's first byte is written, it is counted."""
    async with serving(http=http) as served:
        client = await served.connect()
        transport = served.connection.transport
        write, seen = transport.write, []

        def written(data: bytes) -> None:
            seen.append((data, counts(served)))
            write(data)

        transport.write = transport._straight = written
        await client.ask("/")
        await client.answer()
        assert b"200 OK" in seen[0][0]
        assert all(was == {"2xx": 1} for _, was in seen)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_answer_that_waits_to_be_written_is_counted_once(http: str, *, cancelled: bool) -> None:
    """One that was counted, and whose client leaves before there is room for it, is cut off, and nothing else.

    As when its task is cancelled before that, as by a drain that is over, and uvicorn says that it failed.
    """
    async with serving(Answering(), http=http) as served:
        client = await served.connect()
        await client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /status?404 HTTP/1.1\r\nHost: a\r\n\r\n")
        await become(served, s200=1, s400=1)
        for task in served.site.state.tasks if cancelled else ():
            task.cancel()
        await asyncio.sleep(0)  # the turn in which that is noticed
        client.reset()
        await until(lambda: not served.site.connections and not served.site.state.tasks)
        assert counts(served) == {"2xx": 1, "4xx": 1, "cut off": 1}


async def test_a_server_of_uvicorns_own(http: str) -> None:
    """One that an app runs beside it, in the same process and so with the same classes, answers, and is not counted."""
    async with serving(Answering(), http=http) as served:
        site, loop = served.site, asyncio.get_running_loop()
        protocol = partial(cast("Any", site.config.http_protocol_class), site.config, ServerState(), {})
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        client = Client(sock)
        await client.ask("/upload", "Content-Length: 4", "Connection: close", method="POST")
        await client.send(b"body")
        assert (await client.answer()).body == b"body"
        assert await client.rest() == b""
        client.close()
        server.close()
        await server.wait_closed()
        assert not any(site.cells)


async def test_an_answer_is_one_write(http: str) -> None:
    """Head and body leave together, over kept connections and others, and when requests come together."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/")
        await client.answer()
        transport = served.connection.transport
        write, pieces = transport._straight, []

        def written(data: bytes) -> None:
            if data:  # h11 has an empty last piece
                pieces.append(bytes(data))
            write(data)

        transport.write = transport._straight = written
        ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        await client.send(ask)
        answer = await client.answer()
        await client.send(ask + ask)
        assert [(await client.answer()).body for _ in range(2)] == [answer.body] * 2
        assert len(pieces) == 3
        assert all(piece.startswith(b"HTTP/1.1 200") and piece.endswith(answer.body) for piece in pieces)


async def test_what_the_app_does_wrong(http: str) -> None:
    """An app that fails before its answer is a 500; one that breaks off or says too much is counted once."""
    async with serving(Answering(), http=http) as served:
        for path in ("/fails", "/silent", "/breaks", "/twice"):
            client = await served.connect()
            await client.ask(path)
            await client.rest()
            client.close()
            await until(lambda: not served.site.connections)
        assert counts(served) == {"5xx": 2, "2xx": 2, "cut off": 1}


async def test_a_client_that_leaves(http: str) -> None:
    """Its answer is cut off, or its request aborted, and stays that whatever the app still says."""
    async with serving(Answering(), http=http) as served:
        idle = await served.connect()
        idle.close()
        await until(lambda: not served.site.connections)
        client = await served.connect()
        await client.ask("/halves")
        await client.read_to(b"half")
        client.close()
        await become(served, s200=1, cut=1)
        client = await served.connect()
        await client.ask("/held")
        await served.waits(2)
        client.reset()  # who only closes may have shut down writing, and is answered
        await become(served, s200=1, cut=1, aborted=1)
        served.app.go.set()
        await until(lambda: len(served.app.ended) == 2)
        await until(lambda: not served.site.state.tasks)
        assert counts(served) == {"2xx": 1, "cut off": 1, "aborted": 1}


async def test_a_task_after_the_answer(http: str) -> None:
    """A request is over with its answer, though its task is not, and the client leaves meanwhile."""
    async with serving(http=http) as served:
        client = await served.connect()
        await client.ask("/background")
        await client.answer()
        assert counts(served) == {"2xx": 1}
        await client.ask("/")
        await client.answer()
        client.close()
        served.app.go.set()
        await until(lambda: served.app.ended and not served.site.connections)
        assert counts(served) == {"2xx": 2}


async def test_pipelined_requests(http: str) -> None:
    """Requests that come together are counted one by one, and begin one by one."""
    async with serving(http=http) as served:
        client = await served.connect()
        ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        await client.send(4 * ask)
        for _ in range(4):
            await client.answer()
        assert counts(served) == {"2xx": 4}
        await client.send(ask.replace(b"/ ", b"/held ") + ask)
        await served.waits()
        await become(served, s200=4)
        served.app.go.set()
        for _ in range(2):
            await client.answer()
        assert counts(served) == {"2xx": 6}


async def test_what_is_no_request(http: str) -> None:
    """What uvicorn answers by itself is counted as well: nonsense, and what is over the limit."""
    async with serving(http=http, limit_concurrency=2) as served:
        client = await served.connect()
        await client.send(b"what?\r\n\r\n")
        await client.rest()
        client.close()
        assert counts(served) == {"4xx": 1}
        await until(lambda: not served.site.connections)
        await served.connect()
        client = await served.connect()
        await client.ask("/")
        await client.rest()
        client.close()
        assert counts(served) == {"4xx": 1, "5xx": 1}


@pytest.mark.parametrize("ws", ["websockets-sansio", "websockets", "wsproto"])
async def test_handshakes(http: str, ws: str) -> None:
    """A WebSocket's handshake is one request, answered 101 or otherwise; what follows it is none."""
    async with serving(Answering(), http=http, ws=ws) as served:
        url = f"ws://127.0.0.1:{served.address[1]}"
        async with connect(url) as websocket:
            await websocket.wait_closed()
        assert counts(served) == {"1xx": 1}
        for path in ("refused", "denied", "fails"):
            with pytest.raises(InvalidStatus):
                await connect(f"{url}/{path}")
        await become(served, s101=1, s300=1, s400=1, s500=1)


async def test_two_sites_count_apart(http: str) -> None:
    """Each has cells of its own, and a class of uvicorn's counts once, however often it was prepared."""
    async with serving(http=http) as first, serving(http=http) as second:
        for served, requests in ((first, 1), (second, 2)):
            client = await served.connect()
            for _ in range(requests):
                await client.ask("/")
                await client.answer()
        assert (counts(first), counts(second)) == ({"2xx": 1}, {"2xx": 2})


HEADERS = [(b"x-one", b"1"), (b"Content-Type", b"text/event-stream; charset=utf-8")]


@pytest.mark.parametrize("kind", [list, tuple, iter])
async def test_headers_that_can_be_read_once(http: str, kind: Callable[[Iterable[Any]], Any]) -> None:
    """All headers arrive, and a stream is known for one, also where the app gives what can be read only once."""

    class Streaming(App):
        async def _index(self, _: Any, __: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": kind(HEADERS)})
            await self._wait()

    async with serving(Streaming(), http=http) as served:
        client = await served.connect()
        await client.ask("/")
        head = (await client.read_to(b"\r\n\r\n")).lower()
        assert b"x-one: 1" in head
        assert b"content-type: text/event-stream" in head
        await served.becomes(ConnectionClass.STREAM)
