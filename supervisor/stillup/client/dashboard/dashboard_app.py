"""The dashboard's requests: the files of the page, its session, the stream of news, and what it may ask for."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import resources
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from stillup.client.client_errors import problem_of
from stillup.client.control_client import Client
from stillup.client.dashboard.dashboard_feed import DashboardFeed
from stillup.client.dashboard.dashboard_keys import DashboardKeys
from stillup.core.policy import MOST_WORKERS
from stillup.errors import StillupError, UsageError
from stillup.wire.api_shapes import RolloutView, ScalingView

INDEX: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
Answer = RolloutView | ScalingView
Handler = Callable[[Request], Awaitable[Response]]


def dashboard_app(client: Client, feed: DashboardFeed, keys: DashboardKeys) -> Router:
    """Everything that there is to ask for; nothing else of the supervisor's is passed on."""
    return Router(
        [
            Route("/", _page(_files()), methods=["GET"]),
            Route("/session", _session(keys), methods=["POST"]),
            Route("/api/stream", _stream(feed), methods=["GET"]),
            Route("/api/{name}", _order(client, feed), methods=["POST"]),
            Route("/{name}", _page(_files()), methods=["GET"]),
        ],
        redirect_slashes=False,
    )


def _files() -> dict[str, tuple[bytes, str]]:
    """The page's files by name, each with its media type."""
    folder = resources.files("stillup.client.dashboard") / "page"
    found = {one.name: one for one in folder.iterdir() if one.name.rpartition(".")[2] in _TYPES}
    return {name: (one.read_bytes(), _TYPES[name.rpartition(".")[2]]) for name, one in found.items()}


def _page(files: dict[str, tuple[bytes, str]]) -> Handler:
    async def page(request: Request) -> Response:
        name = request.path_params.get("name", INDEX)
        if name not in files:
            return PlainTextResponse("there is no such page\n", 404)
        content, media_type = files[name]
        return Response(content, media_type=media_type)

    return page


def _session(keys: DashboardKeys) -> Handler:
    """The token for the key that the body is."""

    async def session(request: Request) -> Response:
        token = keys.redeem((await request.body()).decode(errors="replace"))
        if token is None:
            return PlainTextResponse("that address was used, or is older than a minute\n", 401)
        return JSONResponse({"token": token})

    return session


def _stream(feed: DashboardFeed) -> Handler:
    async def stream(_: Request) -> Response:
        return StreamingResponse(feed.lines(), media_type="application/x-ndjson")

    return stream


def _order(client: Client, feed: DashboardFeed) -> Handler:
    """Ask the supervisor, whose answer is passed on: what has begun, or the problem."""

    async def order(request: Request) -> Response:
        try:
            call = _call(client, request)
            if call is None:
                return PlainTextResponse("there is nothing of that name to ask for\n", 404)
            answer = await run_in_threadpool(call)
        except StillupError as error:
            problem = problem_of(error)
            return Response(msgspec.json.encode(problem), problem.status, media_type=_PROBLEM)
        finally:
            feed.look_soon()
        return Response(msgspec.json.encode(answer), media_type=_JSON)

    return order


def _call(client: Client, request: Request) -> Callable[[], Answer] | None:
    """What is asked for; None if that is nothing of ours.

    Raises:
        UsageError: a number of workers that is none.
    """
    calls: dict[str, Callable[[], Answer]] = {
        "reload": client.reload,
        "rollback": client.rollback,
        "abort": client.abort,
        "promote": client.promote,
    }
    name = request.path_params["name"]
    if name != "scale":
        return calls.get(name)
    said = request.query_params.get("workers", "")
    if not re.fullmatch("[0-9]{1,4}", said) or not 1 <= int(said) <= MOST_WORKERS:
        raise UsageError(f"workers is a number from 1 to {MOST_WORKERS}")
    return partial(client.scale, int(said))
