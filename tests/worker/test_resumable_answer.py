"""What apps of Starlette and FastAPI make of the extension ``http.response.handoff``; the server is a fake."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Route

from stillup.app import Resumable
from stillup.worker import resumable_answer
from stillup.worker.app_state import Draining
from tests.asgi.event_loops import until

pytestmark = pytest.mark.usefixtures("loop_factory")

HANDOFF = "http.response.handoff"


class FakeServer:
    """The server's side of one answer, which may be one that goes on."""

    def __init__(self, *, state: bytes | None = None, knows: bool = True, takes: bool = True) -> None:
        self.extension: dict[str, Any] = {} if state is None else {"state": state}
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"spec_version": "2.4"},
            "method": "POST",
            "path": "/",
            "headers": [],
            "query_string": b"",
        }
        if knows:
            self.scope["extensions"] = {HANDOFF: self.extension}
        self.takes = takes
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return await asyncio.Future()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start" and message.get("handoff"):
            self.extension["ready"] = all(name != b"content-encoding" for name, _ in message["headers"])
        if message["type"] == HANDOFF and self.takes:
            self.extension["handed"] = True
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent if message["type"] == "http.response.body")

    @property
    def is_complete(self) -> bool:
        return self.sent[-1].get("more_body") is False

    def next(self) -> FakeServer:
        """That of the next worker."""
        return FakeServer(state=self.sent[-1]["state"])


class Model:
    """Gives a token each time that it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.computed: list[int] = []

    async def tokens(self, start: int) -> AsyncIterator[tuple[str, int]]:
        for number in range(start, 4):
            await self.go.acquire()
            self.computed.append(number)
            yield f"{number} ", number + 1

    def give(self, count: int) -> None:
        for _ in range(count):
            self.go.release()


@pytest.fixture
def draining(monkeypatch: pytest.MonkeyPatch) -> Draining:
    """What tells the app that its worker drains."""
    told = Draining()
    monkeypatch.setattr(resumable_answer, "current", lambda: SimpleNamespace(draining=told))
    return told


def answer(server: FakeServer, model: Model, **more: Any) -> asyncio.Task[None]:
    response = Resumable(Request(server.scope), model.tokens, 0, **more)
    return asyncio.ensure_future(response(server.scope, server.receive, server.send))


async def test_it_goes_on(draining: Draining) -> None:
    """Every token once, whatever was being waited for when the word came."""
    model, first = Model(), FakeServer()
    task = answer(first, model)
    model.give(2)
    await until(lambda: first.body == b"0 1 ")
    draining.begin()
    await task
    assert json.loads(first.sent[-1]["state"]) == {"version": 1, "state": 2}
    assert first.sent[0]["handoff"] is True
    draining.over()
    second = first.next()
    model.give(2)
    await answer(second, model)
    assert second.sent[0]["handoff"] is True
    assert (first.body + second.body, second.is_complete) == (b"0 1 2 3 ", True)
    assert model.computed == [0, 1, 2, 3]


async def test_where_nobody_takes_it(draining: Draining) -> None:
    """It goes on here, and is offered once more after each part."""
    model, server = Model(), FakeServer(takes=False)
    task = answer(server, model)
    draining.begin()
    model.give(4)
    await task
    assert (server.body, server.is_complete) == (b"0 1 2 3 ", True)
    assert sum(message["type"] == HANDOFF for message in server.sent) > 1


async def test_without_the_extension(draining: Draining) -> None:
    """Under another server it is a streamed answer, and says nothing more."""
    model, server = Model(), FakeServer(knows=False)
    draining.begin()
    model.give(4)
    await answer(server, model)
    assert server.sent[0].keys() == {"type", "status", "headers"}
    assert (server.body, server.is_complete) == (b"0 1 2 3 ", True)


async def test_the_background_is_for_who_sends_the_end(draining: Draining) -> None:
    """It runs once, in the worker that ends the answer."""
    ran: list[str] = []
    model, first = Model(), FakeServer()
    task = answer(first, model, background=BackgroundTask(ran.append, "first"))
    draining.begin()
    await task
    draining.over()
    model.give(4)
    await answer(first.next(), model, background=BackgroundTask(ran.append, "second"))
    assert ran == ["second"]


async def test_a_state_of_another_version(draining: Draining) -> None:
    """It is begun without the word, which cuts it."""
    model = Model()
    model.give(4)
    server = FakeServer(state=b'{"version":2,"state":7}')
    await answer(server, model)
    assert "handoff" not in server.sent[0]


async def test_a_stream_that_fails(draining: Draining) -> None:
    """As any other that does: nothing says that it is complete."""

    async def fails(_: int) -> AsyncIterator[tuple[str, int]]:
        yield "a", 1
        raise ZeroDivisionError

    server = FakeServer()
    with pytest.raises((ZeroDivisionError, ExceptionGroup)):  # earlier versions of Starlette raise a group
        await Resumable(Request(server.scope), fails, 0)(server.scope, server.receive, server.send)
    assert (server.body, server.is_complete) == (b"a", False)


async def pass_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


@pytest.mark.parametrize(
    "middleware", [Middleware(BaseHTTPMiddleware, dispatch=pass_on), Middleware(GZipMiddleware, minimum_size=1)]
)
async def test_middleware_that_keeps_the_word_or_encodes(middleware: Middleware, draining: Draining) -> None:
    """It goes on here, though its worker drains: every part, and the end."""

    def endpoint(request: Request) -> Resumable[int]:
        return Resumable(request, model.tokens, 0, media_type="text/plain")

    model, server = Model(), FakeServer()
    server.scope["headers"] = [(b"accept-encoding", b"gzip")]
    draining.begin()
    model.give(4)
    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])], middleware=[middleware])
    await app(server.scope, server.receive, server.send)
    encoded = any(name == b"content-encoding" for name, _ in server.sent[0]["headers"])
    assert (gzip.decompress(server.body) if encoded else server.body) == b"0 1 2 3 "
    assert server.is_complete
    assert all(message["type"] != HANDOFF for message in server.sent)
