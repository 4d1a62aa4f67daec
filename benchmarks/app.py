"""The ASGI application under load: bare ASGI, so that only the server is measured.

Every answer carries `x-gen`, which names the code that gave it: the generation under
stillup (STILLUP_GENERATION), the worker's process id under any other server; and `x-pid`.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY = b"ok\n"


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve the routes below; on every other path there is no page."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _route(scope, receive, send)
    elif scope["type"] == "websocket" and scope["path"] == "/echo-messages":
        await _echo_messages(receive, send)
    else:
        raise NotImplementedError(scope["type"])


async def _lifespan(receive: Receive, send: Send) -> None:
    """Agree to start and to stop: there is nothing to open or to close."""
    while True:
        step = (await receive())["type"]
        await send({"type": f"{step}.complete"})
        if step == "lifespan.shutdown":
            return


async def _echo_messages(receive: Receive, send: Send) -> None:
    """Send each text back, until the client leaves."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def _route(scope: Message, receive: Receive, send: Send) -> None:
    query = parse_qs(scope["query_string"].decode("latin-1"))
    match scope["path"]:
        case "/" | "/healthz":
            await _answer(send, BODY)
        case "/slow":
            await asyncio.sleep(int(query["ms"][0]) / 1000)
            await _answer(send, BODY)
        case "/upload":
            await _upload(receive, send)
        case "/early":
            await _answer(send, BODY)  # and leave its body to the server
        case "/echo":
            await _answer(send, query["n"][0].encode())
        case "/background":
            await _answer(send, BODY)
            await asyncio.sleep(int(query["ms"][0]) / 1000)
        case "/stream":
            plain = query.get("type") == ["plain"]
            await _stream(send, int(query["n"][0]), int(query["ms"][0]) / 1000, plain=plain)
        case _:
            await _answer(send, b"no such page\n", status=404)


async def _upload(receive: Receive, send: Send) -> None:
    """Count the bytes of the body and answer with their number."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await _answer(send, json.dumps({"bytes": size}).encode(), kind=b"application/json")


async def _stream(send: Send, events: int, pause: float, *, plain: bool) -> None:
    """Send `events` events, or lines of plain text, `pause` seconds before each; the length is not declared."""
    await _start(send, 200, [(b"content-type", b"text/plain" if plain else b"text/event-stream")])
    for number in range(1, events + 1):
        await asyncio.sleep(pause)
        data = b"done" if number == events else b"%d" % number
        body = b"%s\n" % data if plain else b"data: %s\n\n" % data
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, body: bytes, *, status: int = 200, kind: bytes = b"text/plain") -> None:
    length = b"%d" % len(body)
    await _start(send, status, [(b"content-type", kind), (b"content-length", length)])
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    # Read at each answer: a server may import this module before it forks.
    process = b"%d" % os.getpid()
    generation = os.environ.get("STILLUP_GENERATION", "").encode() or process
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"x-gen", generation), (b"x-pid", process)],
        }
    )
