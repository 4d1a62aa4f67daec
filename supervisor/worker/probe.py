"""The health probe: one GET, sent to the app in this process before it accepts anything.

Import and lifespan alone are a weak gate: an app with broken routes starts and then answers 500.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from supervisor.errors import StillupError

HEALTHY = range(200, 400)
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


class UnhealthyError(StillupError):
    """The app never answered well."""


async def probe(app: Any, path: str, host: str, state: Mapping[str, Any], seconds: float) -> str:
    """Ask until the answer is healthy (200 to 399); what it was, as ``/healthz 200``.

    Args:
        app: an ASGI application.
        path: such as ``/healthz``; a query may follow, which is told to nobody but the app: it may hold a token.
        host: the Host header.
        state: what the lifespan left for requests.
        seconds: how long to try.

    Raises:
        UnhealthyError: it was not healthy in time; the message has the last answer and the number of tries.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    shown = path.partition("?")[0]
    last, tries, pause = "did not answer", 0, FIRST_PAUSE
    while (left := end - loop.time()) > 0:
        tries += 1
        answer = loop.create_task(_get(app, path, host, state))
        try:
            # An app that shrugs off its cancellation is left to itself: it must not outlast the deadline.
            done, _ = await asyncio.wait({answer}, timeout=left)
        finally:
            answer.cancel()
        if not done:
            break
        if (error := _raised(answer)) is not None:
            last = f"raised {type(error).__name__}: {error}"
        elif (status := answer.result()) in HEALTHY:
            return f"{shown} {status}"
        else:
            last = f"answered {status}" if status else "did not answer"
        await asyncio.sleep(min(pause, max(0.0, end - loop.time())))
        pause = min(pause * 2, LONGEST_PAUSE)
    raise UnhealthyError(f"{shown} {last} ({tries} tries in {seconds:.1f} s)")


def _raised(answer: asyncio.Task[int]) -> BaseException | None:
    """What the app raised instead of an answer; an app may also cancel itself."""
    return asyncio.CancelledError("by the app itself") if answer.cancelled() else answer.exception()


async def _get(app: Any, path: str, host: str, state: Mapping[str, Any]) -> int:
    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", host.encode()), (b"user-agent", b"stillup-probe")],
        "client": ("127.0.0.1", 0),
        "server": (host, None),
        "state": dict(state),
    }
    status = 0
    asked = False
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            answered.set()

    await app(scope, receive, send)
    return status
