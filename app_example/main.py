"""Routes that take all the ways in which a reload could be noticed. Every answer says which generation gave it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TypedDict

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from stillup.worker.app_state import Stillup

GENERATION = os.environ.get("STILLUP_GENERATION", "0")
WORKER = os.environ.get("STILLUP_WORKER", "0")


class GenerationHeader:
    """Puts ``x-gen`` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-gen", GENERATION.encode())]
            await send(message)

        await self.app(scope, receive, marked)


async def index(_: Request) -> Response:
    return PlainTextResponse(f"hello from worker {GENERATION}.{WORKER} (pid {os.getpid()})\n")


async def slow(request: Request) -> Response:
    """Take ``ms`` milliseconds."""
    await asyncio.sleep(int(request.query_params.get("ms", "1000")) / 1000)
    return PlainTextResponse(f"slow hello from worker {GENERATION}.{WORKER}\n")


async def stream(request: Request) -> Response:
    """Server-sent events: ``n`` of them (0: without end), one each ``ms`` milliseconds, until this worker drains.

    A stream with an end is finished in any case; one without ends well when its generation does, and the browser's
    EventSource comes back to the new one.
    """
    count, pause = int(request.query_params.get("n", "0")), int(request.query_params.get("ms", "1000")) / 1000
    # Under plain uvicorn there is no such state, and nothing to wait for.
    stillup: Stillup | None = getattr(request.state, "stillup", None)

    async def events() -> AsyncIterator[str]:
        sent = 0
        leaving = asyncio.ensure_future(_begins(stillup))
        try:
            while (not count or sent < count) and (count or not leaving.done()):
                sent += 1
                yield f"id: {sent}\ndata: event {sent} from worker {GENERATION}.{WORKER}\n\n"
                await asyncio.wait([leaving], timeout=pause) if not count else await asyncio.sleep(pause)
            if not count:
                yield "event: bye\ndata: this worker retires; come back\n\n"
        finally:
            leaving.cancel()

    return StreamingResponse(events(), media_type="text/event-stream")


async def _begins(stillup: Stillup | None) -> None:
    await (stillup.draining if stillup is not None else asyncio.Event().wait())


async def upload(request: Request) -> Response:
    """Count the bytes that are sent."""
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
    return JSONResponse({"bytes": count})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(f"{GENERATION}: {await websocket.receive_text()}")


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


class State(TypedDict):
    """What the lifespan leaves for requests."""

    greeting: str


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    """Where a real app opens its connections to databases, and closes them."""
    yield {"greeting": "hello"}


app = Starlette(
    routes=[
        Route("/", index),
        Route("/slow", slow),
        Route("/stream", stream),
        Route("/upload", upload, methods=["POST"]),
        WebSocketRoute("/ws", echo),
        Route("/healthz", healthz),
    ],
    middleware=[Middleware(GenerationHeader)],
    lifespan=lifespan,
)
