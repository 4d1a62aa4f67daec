"""The health probe, asked of real ASGI apps."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stillup.core.worker_settings import WorkerSettings
from stillup.worker import health_probe as module
from stillup.worker.health_probe import UnansweredError, UnhealthyError, probe
from tests.asgi.event_loops import DEADLINE


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
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(module, "SILENCE", 0.01)


def own_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """From now on time passes in sleeps alone, however long the machine stands still; the seconds of each."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: sum(slept))
    return slept


async def asked(app: Any, seconds: float = 10.0, path: str = "/healthz") -> str:
    return await probe(app, WorkerSettings(health_path=path, health_host="example.org"), {}, seconds)


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_healthy(status: int) -> None:
    """An answer of 200 to 299 is healthy at the first try, and is what the probe says."""
    app = Patient(status)
    assert await asked(app) == f"/healthz {status}"
    assert len(app.scopes) == 1


@pytest.mark.parametrize("status", [204, 301, 399, 401])
async def test_healthy_as_configured(status: int) -> None:
    """What is healthy can be said otherwise."""
    settings = WorkerSettings(health_path="/", health_status=((204, 204), (300, 399), (401, 401)))
    assert await probe(Patient(200, status), settings, {}, 10.0) == f"/ {status}"


@pytest.mark.parametrize("first", [100, 199, 301, 400, 404, 500, 503, None])
async def test_healthy_later(first: int | None) -> None:
    """Any other answer, or none, is asked again, until it is healthy."""
    app = Patient(first, first, 200)
    assert await asked(app) == "/healthz 200"
    assert len(app.scopes) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (500, "answered 500"),
        (503, "answered 503"),
    ],
)
async def test_never_healthy(answer: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the deadline the message has the path, the last answer, the number of tries and the seconds."""
    slept = own_time(monkeypatch)
    app = Patient(503, answer)
    with pytest.raises(UnhealthyError) as caught:
        await asked(app, seconds=0.1)
    match = re.fullmatch(rf"/healthz {words} \((\d+) tries in 0\.1 s\)", str(caught.value))
    assert match is not None
    assert int(match.group(1)) == len(app.scopes) == len(slept) == 13


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (400, r"answered 400 \(13 tries in 0\.1 s\): .*--health-host NAME"),
        (404, r"answered 404 \(13 tries in 0\.1 s\): .*--health-path"),
        (301, r"answered 301 \(13 tries in 0\.1 s\): .*--health-status 200-399"),
        (418, r"answered 418 \(13 tries in 0\.1 s\)"),
        (None, r"did not answer \(13 tries in 0\.1 s\)"),
    ],
)
async def test_never_will_be(answer: int | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same redirect, client error or end without an answer five times in a row is for good; others between are not.

    503 is what an app says that is getting ready.
    """
    own_time(monkeypatch)
    app = Patient(answer, answer, 503, answer, answer, answer, answer, 503, answer)
    with pytest.raises(UnhealthyError) as caught:
        await asked(app)
    assert re.fullmatch(f"/healthz {words}", str(caught.value)), caught.value
    assert len(app.scopes) == 13


async def test_raising() -> None:
    """An exception ends the probe at once, also behind a whole answer, and is the cause of what is said."""
    error = RuntimeError("no database")
    app = Patient(503, error)
    with pytest.raises(UnhealthyError, match=r"^/healthz raised RuntimeError: no database$") as caught:
        await asked(app)
    assert caught.value.__cause__ is error
    assert len(app.scopes) == 2


async def test_what_it_was_told() -> None:
    """Each answer that is not healthy is told as it comes, and a silence as 0."""
    told: list[int] = []
    free = asyncio.Event()
    answers = Patient(503, 404, 200)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if len(told) == 2:
            await free.wait()
        await answers(scope, receive, send)

    def tell(status: int) -> None:
        told.append(status)
        if status == 0:
            free.set()

    assert await probe(app, WorkerSettings(health_path="/"), {}, 10.0, tell) == "/ 200"
    assert told == [503, 404, 0]


async def test_headers() -> None:
    """Headers that are given come with the probe, in place of its own; behind https it is asked as a proxy would."""
    app = Patient(200)
    headers = (("Host", "shop.example"), ("X-Forwarded-Proto", "https"), ("Authorization", "Bearer secret"))
    await probe(app, WorkerSettings(health_path="/", health_headers=headers), {}, 5.0)
    (scope,) = app.scopes
    assert scope["scheme"] == "https"
    assert sorted(scope["headers"]) == [
        (b"authorization", b"Bearer secret"),
        (b"host", b"shop.example"),
        (b"user-agent", b"stillup-probe"),
        (b"x-forwarded-proto", b"https"),
    ]


async def test_a_redirect_to_https() -> None:
    """Starlette's redirect to https is not healthy, and the hint that is given makes it answer for itself."""
    app = Starlette(routes=[Route("/healthz", lambda _: Response())], middleware=[Middleware(HTTPSRedirectMiddleware)])
    with pytest.raises(
        UnhealthyError, match=r"answered 307 .* https://example\.org/healthz.* 'X-Forwarded-Proto: https'"
    ):
        await asked(app)
    settings = WorkerSettings(health_path="/healthz", health_headers=(("X-Forwarded-Proto", "https"),))
    assert await probe(app, settings, {}, 5.0) == "/healthz 200"


async def test_the_query_is_the_apps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token in the query reaches the app, and is neither in what the probe says of success nor of failure."""
    app = Patient(200)
    assert await asked(app, path="/healthz?token=secret") == "/healthz 200"
    assert app.scopes[0]["query_string"] == b"token=secret"
    own_time(monkeypatch)
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

    with pytest.raises(UnhealthyError, match=r"/healthz did not answer \(1 try in 0\.1 s\)"):
        await asked(app, seconds=0.1)
    await asyncio.sleep(0)
    assert told == ["cancelled"]


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_asked_in_any_case(seconds: float) -> None:
    """An app is asked once though its time is over, as when it has all passed in the startup, and may have answered."""
    app = Patient(200)
    assert await asked(app, seconds=seconds) == "/healthz 200"
    with pytest.raises(UnhealthyError, match=r"answered 503 \(1 try in 0\.0 s\)"):
        await asked(Patient(503), seconds=seconds)

    async def silent(_: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(UnansweredError, match=r"did not answer \(1 try in 0\.0 s\)"):
        await asked(silent, seconds=seconds)


@pytest.mark.parametrize(
    ("still", "words"),
    [(0.5, r"answered 503 \(3 tries in 0\.4 s\)"), (1.5, r"did not answer \(4 tries in 0\.4 s\)")],
)
async def test_a_try_that_is_cut_short(still: float, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the deadline passes soon after a try began, as on a machine that stands still, the answers before count."""
    slept = own_time(monkeypatch)
    monkeypatch.setattr(module, "SILENCE", 1.0)
    heard: list[int] = []
    answers = Patient(503)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if len(answers.scopes) == 3:
            slept.append(still)
            await asyncio.Event().wait()
        await answers(scope, receive, send)

    with pytest.raises(UnhealthyError, match=rf"^/healthz {words}$") as caught:
        await probe(app, WorkerSettings(health_path="/healthz"), {}, 0.4, heard.append)
    assert (type(caught.value) is UnansweredError) == (still > module.SILENCE)
    assert heard == [503] * 3


async def test_shrugging_off_the_cancellation() -> None:
    """An app that does not let itself be cancelled does not outlast the deadline."""
    free = asyncio.Event()

    async def app(_: Any, receive: Any, send: Any) -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    async with asyncio.timeout(DEADLINE / 2):
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
    slept = own_time(monkeypatch)
    await asked(Patient(500, 500, 500, 500, 500, 500, 200))
    assert slept == [0.001, 0.002, 0.004, 0.008, 0.01, 0.01]


async def test_request() -> None:
    """The request is a GET of the path and its query, with the Host header given, and says that it is the probe."""
    app = Patient(200)
    settings = WorkerSettings(health_path="/he%20alth?deep=1", health_host="shop.example")
    assert await probe(app, settings, {"greeting": "hello"}, 5.0) == "/he%20alth 200"
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

    await probe(app, WorkerSettings(health_path="/"), state, 5.0)
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
        await asked(app, path="/elsewhere")
