"""An app for tests that decide how far a request has come: some of its answers wait for a file, the gate, to exist.

Gates are names, in the query, of files in the working directory. A request that waits for gate ``g`` says so by the
file ``g.reached``. Answers that say who gave them say ``GENERATION.WORKER PID``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WHO = f"{os.environ.get('STILLUP_GENERATION')}.{os.environ.get('STILLUP_WORKER')} {os.getpid()}"
POLL = 0.02
BIG = 16 * 1024 * 1024


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve the routes below."""
    if scope["type"] == "lifespan":
        while True:
            step = (await receive())["type"]
            await send({"type": f"{step}.complete"})
            if step == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    else:
        query = parse_qs(scope["query_string"].decode())
        await _ROUTES[scope["path"]](scope, query.get("gate", [""])[0], receive, send)


async def _who(_: Message, __: str, ___: Receive, send: Send) -> None:
    await _answer(send, WHO)


async def _client(scope: Message, _: str, __: Receive, send: Send) -> None:
    """Answer with the client's address, as the app sees it."""
    await _answer(send, f"{WHO} {scope['client']}")


async def _big(_: Message, __: str, ___: Receive, send: Send) -> None:
    """Answer with more than any socket's buffers hold, all at once."""
    await _answer(send, WHO.ljust(BIG))


async def _wait(_: Message, gate: str, __: Receive, send: Send) -> None:
    """Answer once the gate is open."""
    await _pass(gate)
    await _answer(send, f"{WHO} {gate}")


async def _upload(_: Message, gate: str, receive: Receive, send: Send) -> None:
    """Answer with the number of bytes of the body."""
    _note(gate, "reached")
    count, more = 0, True
    while more:
        message = await receive()
        count += len(message.get("body", b""))
        more = message.get("more_body", False)
    await _answer(send, str(count))


async def _early(_: Message, __: str, ___: Receive, send: Send) -> None:
    """Answer without a look at the body."""
    await _answer(send, WHO)


async def _chunked(_: Message, gate: str, __: Receive, send: Send) -> None:
    """Send one chunk, and the other once the gate is open."""
    await _start(send, b"text/plain")
    await _more(send, WHO)
    await _pass(gate)
    await _more(send, " and that is all")
    await send({"type": "http.response.body"})


async def _background(_: Message, gate: str, __: Receive, send: Send) -> None:
    """Answer, and work on until the gate is open: then write ``GATE.done``, or ``GATE.cancelled`` if it was."""
    await _answer(send, WHO)
    try:
        await _pass(gate)
    except asyncio.CancelledError:
        _note(gate, "cancelled")
        raise
    _note(gate, "done")


async def _events(scope: Message, gate: str, _: Receive, send: Send) -> None:
    """Send an event; then end when the worker drains, or, with a gate, when that is open."""
    await _start(send, b"text/event-stream")
    await _more(send, f"data: {WHO}\n\n")
    await (_pass(gate) if gate else scope["state"]["stillup"].draining)
    await _more(send, "event: bye\ndata:\n\n")
    await send({"type": "http.response.body"})


async def _fork(_: Message, gate: str, __: Receive, send: Send) -> None:
    """Fork a process that lives until the gate is open, whatever becomes of its parent; answer with its pid."""
    child = os.fork()
    if not child:
        _live_until(gate)
    await _answer(send, str(child))


def _live_until(gate: str) -> NoReturn:
    _note(gate, "reached")
    while not _is_open(gate):
        time.sleep(POLL)
    os._exit(0)


_ROUTES = {
    "/": _who,
    "/client": _client,
    "/big": _big,
    "/wait": _wait,
    "/upload": _upload,
    "/early": _early,
    "/chunked": _chunked,
    "/background": _background,
    "/events": _events,
    "/fork": _fork,
}


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{WHO} {message.get('text')}"})


async def _pass(gate: str) -> None:
    _note(gate, "reached")
    while not _is_open(gate):  # noqa: ASYNC110 - the one who opens it is another process
        await asyncio.sleep(POLL)


def _is_open(gate: str) -> bool:
    return Path(gate).exists()


def _note(gate: str, what: str) -> None:
    Path(f"{gate}.{what}").touch()


async def _answer(send: Send, text: str) -> None:
    await _start(send, b"text/plain", (b"content-length", b"%d" % len(text)))
    await send({"type": "http.response.body", "body": text.encode()})


async def _start(send: Send, kind: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), *headers]})


async def _more(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
