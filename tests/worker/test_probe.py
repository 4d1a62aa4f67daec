"""The health probe, asked of real ASGI apps."""

from __future__ import annotations

import asyncio
import contextlib
import re
from itertools import pairwise
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from supervisor.worker import probe as module
from supervisor.worker.probe import UnhealthyError, probe


class Patient:
    """An app that answers with each of these in turn, the last one for ever; ``None`` is no answer."""

    def __init__(self, *answers: int | Exception | None) -> None:
        self.answers = list(answers)
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await send({"type": "http.response.start", "status": answer, "headers": []})
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again soon."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)


async def asked(app: Any, seconds: float = 10.0, path: str = "/healthz") -> str:
    return await probe(app, path, "example.org", {}, seconds)


@pytest.mark.parametrize("status", [200, 204, 301, 399])
async def test_healthy(status: int) -> None:
    """An answer of 200 to 399 is healthy at the first try, and is what the probe says."""
    app = Patient(status)
    assert await asked(app) == f"/healthz {status}"
    assert len(app.scopes) == 1


@pytest.mark.parametrize("first", [100, 199, 400, 404, 500, 503, RuntimeError("not yet"), None])
async def test_healthy_later(first: int | Exception | None) -> None:
    """Any other answer, none, or an exception is asked again, until it is healthy."""
    app = Patient(first, first, 200)
    assert await asked(app) == "/healthz 200"
    assert len(app.scopes) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (500, "answered 500"),
        (RuntimeError("no database"), "raised RuntimeError: no database"),
        (None, "did not answer"),
    ],
)
async def test_never_healthy(answer: int | Exception | None, words: str) -> None:
    """At the deadline the message has the path, the last answer, the number of tries and the seconds."""
    app = Patient(404, answer)
    with pytest.raises(UnhealthyError) as caught:
        await asked(app, seconds=0.1)
    match = re.fullmatch(rf"/healthz {words} \((\d+) tries in 0\.1 s\)", str(caught.value))
    assert match is not None
    assert int(match.group(1)) == len(app.scopes) > 1


async def test_the_query_is_the_apps_alone() -> None:
    """A token in the query reaches the app, and is neither in what the probe says of success nor of failure."""
    app = Patient(200)
    assert await asked(app, path="/healthz?token=secret") == "/healthz 200"
    assert app.scopes[0]["query_string"] == b"token=secret"
    with pytest.raises(UnhealthyError, match=r"^/healthz answered 500 \("):
        await asked(Patient(500), seconds=0.1, path="/healthz?token=secret")


async def test_never_answering() -> None:
    """An app that does not come back is given up at the deadline, and is told so by cancellation."""
    told: list[str] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    with pytest.raises(UnhealthyError, match=r"/healthz did not answer \(1 tries in 0\.1 s\)"):
        await asked(app, seconds=0.1)
    await asyncio.sleep(0)
    assert told == ["cancelled"]


async def test_shrugging_off_the_cancellation() -> None:
    """An app that does not let itself be cancelled does not outlast the deadline."""
    free = asyncio.Event()

    async def app(_: Any, receive: Any, send: Any) -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    async with asyncio.timeout(5):
        with pytest.raises(UnhealthyError, match="did not answer"):
            await asked(app, seconds=0.1)
    free.set()


async def test_cancelling_itself() -> None:
    """An app that raises CancelledError has given an answer, and not a good one; it is no order to stop asking."""

    async def app(_: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(UnhealthyError, match="raised CancelledError"):
        await asked(app, seconds=0.1)


async def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries the probe pauses, each time twice as long, up to a limit."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.04)
    times: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        times.append(asyncio.get_running_loop().time())
        await Patient(200 if len(times) == 5 else 500)(scope, receive, send)

    await asked(app)
    pauses = [after - before for before, after in pairwise(times)]
    least = (0.02, 0.04, 0.04, 0.04)
    assert all(pause > 0.9 * at_least for pause, at_least in zip(pauses, least, strict=True))
    assert pauses[3] < 0.16


async def test_request() -> None:
    """The request is a GET of the path and its query, with the Host header given, and says that it is the probe."""
    app = Patient(200)
    assert await probe(app, "/he%20alth?deep=1", "shop.example", {"greeting": "hello"}, 5.0) == "/he%20alth 200"
    (scope,) = app.scopes
    assert (scope["type"], scope["method"], scope["path"]) == ("http", "GET", "/he alth")
    assert (scope["raw_path"], scope["query_string"]) == (b"/he%20alth", b"deep=1")
    assert dict(scope["headers"]) == {b"host": b"shop.example", b"user-agent": b"stillup-probe"}


async def test_state_of_the_lifespan() -> None:
    """The app finds what its lifespan left, in a copy, so that what it puts there stays with this request."""
    state = {"greeting": "hello"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"] == {"greeting": "hello"}
        scope["state"]["mark"] = "of this request"
        await Patient(200)(scope, receive, send)

    await probe(app, "/", "localhost", state, 5.0)
    assert state == {"greeting": "hello"}


async def test_an_app_that_reads() -> None:
    """An app that reads its request finds an empty body once, and a disconnect only after its answer."""
    heard: list[str] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        message = await receive()
        heard.append(f"{message['type']} {message['body']!r} {message['more_body']}")
        listening = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert not listening.done()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0)
        assert not listening.done()
        await send({"type": "http.response.body", "body": b""})
        heard.append((await listening)["type"])

    assert await asked(app) == "/healthz 200"
    assert heard == ["http.request b'' False", "http.disconnect"]


async def test_a_real_framework() -> None:
    """An app of Starlette's, with routing, query, URL and client, answers the probe as it answers anybody."""

    async def healthz(request: Request) -> Response:
        assert request.client is not None
        assert str(request.url) == "http://example.org/healthz?deep=1"
        return JSONResponse({"deep": request.query_params["deep"]}, 203)

    app = Starlette(routes=[Route("/healthz", healthz)])
    assert await asked(app, path="/healthz?deep=1") == "/healthz 203"
    with pytest.raises(UnhealthyError, match="/elsewhere answered 404"):
        await asked(app, path="/elsewhere", seconds=0.05)
