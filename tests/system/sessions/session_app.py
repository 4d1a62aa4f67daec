"""An app of WebSockets that are handed over; the files where it runs say how far it has come, and let it go on.

``KNOWS=0`` in its environment makes it a release that has never heard of handing over, ``VERSION`` the version of what
it hands over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from stillup.app import current, resume

HERE = Path.cwd()
ME = f"{os.environ['STILLUP_GENERATION']} {os.getpid()}"
KNOWS = os.environ.get("KNOWS", "1") == "1"
VERSION = int(os.environ.get("VERSION", "1"))
Handler = Callable[[WebSocket], Awaitable[None]]


def note(file: str, *said: object) -> None:
    with (HERE / file).open("a") as lines:
        lines.write(" ".join(map(str, said)) + "\n")


def unless_unaware(handler: Handler) -> Handler:
    """What it does for a WebSocket if it knows how to hand one over."""

    async def handle(websocket: WebSocket) -> None:
        if KNOWS:
            await handler(websocket)
            return
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(f"{ME} 0 {await websocket.receive_text()}")

    return handle


@unless_unaware
async def echo(websocket: WebSocket) -> None:
    """Answer each text with who this is, how many there were, and the text; ``gate NAME`` waits for that file first."""
    if not current().resuming:
        note("charged", ME)
    chat = "chat" if "chat" in websocket.scope["subprotocols"] else None
    session = await resume(websocket, {"count": 0, "pad": ""}, version=VERSION, subprotocol=chat)
    state: dict[str, Any] = session.state
    try:
        while True:
            text = await session.receive_text()
            state["count"] += 1
            if text.startswith("gate "):
                (HERE / f"{text[5:]}.reached").touch()
                while not (HERE / text[5:]).exists():  # noqa: ASYNC110 - the test makes it, in another process
                    await asyncio.sleep(0.01)
            if text.startswith("pad "):
                state["pad"] = "p" * int(text[4:])
            said = f"{len(state['pad'])} bytes" if text == "padded" else text
            await session.send_text(f"{ME} {state['count']} {said}")
    except WebSocketDisconnect as error:
        if not session.handed_over:
            note("left", ME, state["count"], error.code, websocket.url.query)


@unless_unaware
async def push(websocket: WebSocket) -> None:
    """Send numbers as fast as they are taken, until the client says something; then the last one, and close."""
    session = await resume(websocket, {"next": 0}, version=VERSION)

    async def numbers() -> None:
        while True:
            await session.send_text(f"{ME} {session.state['next']}")
            session.state["next"] += 1
            await asyncio.sleep(0)

    pushing = asyncio.create_task(numbers())
    with suppress(WebSocketDisconnect):
        await session.receive_text()
        pushing.cancel()
        await session.send_text(f"{ME} {session.state['next']} last")
        await session.close()
    pushing.cancel()
    with suppress(WebSocketDisconnect, asyncio.CancelledError):
        await pushing


@unless_unaware
async def own_code(websocket: WebSocket) -> None:
    """Not go on with what another worker had: its reason is the app's own."""
    if current().resuming:
        await websocket.close(4001, "no room")
        return
    session = await resume(websocket, 0)
    with suppress(WebSocketDisconnect):
        await session.receive_text()


@unless_unaware
async def failing(websocket: WebSocket) -> None:
    """Fail where it should go on."""
    if current().resuming:
        raise ValueError("on purpose")
    session = await resume(websocket, 0)
    with suppress(WebSocketDisconnect):
        await session.receive_text()


async def healthz(_: Any) -> Response:
    return PlainTextResponse("ok")


async def home(_: Any) -> Response:
    return PlainTextResponse(ME)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/healthz", healthz),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/push", push),
        WebSocketRoute("/own-code", own_code),
        WebSocketRoute("/failing", failing),
    ]
)
