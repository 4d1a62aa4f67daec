"""What the fuzzer talks to: each message comes back as it was. Under stillup the next worker goes on with it.

With ``FORGETFUL`` in its environment each generation has another version of the state, so that no session goes on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from stillup.app import resume

VERSION = int(os.environ["STILLUP_GENERATION"]) if "FORGETFUL" in os.environ else 1


async def echo(websocket: WebSocket) -> None:
    with suppress(WebSocketDisconnect):
        session = await resume(websocket, None, version=VERSION)
        while True:
            message = await session.receive()
            if message["type"] == "websocket.disconnect":
                return
            await session.send({**message, "type": "websocket.send"})


async def healthz(_: Any) -> Response:
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/healthz", healthz), WebSocketRoute("/", echo)])
