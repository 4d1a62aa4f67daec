"""An app whose release goes wrong while it serves, by files in the working directory that name its generation.

``errors-2`` has every tenth request of generation 2 answered with 500, ``slow-2`` has each take longer, ``crash-2``
ends the worker that is asked next; ``broken-2`` ends its import, ``sick-2`` its health probe. Answers say
``GENERATION.WORKER PID``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

GENERATION = os.environ.get("STILLUP_GENERATION")
WHO = f"{GENERATION}.{os.environ.get('STILLUP_WORKER')} {os.getpid()}".encode()
EVERY = 10
"""Of so many requests one is answered with 500."""
USUAL, SLOW = 0.03, 0.3
"""Seconds that each answer takes, and of a slow release: the first is long beside what a busy machine adds, and the
second ten times as long."""

if Path(f"broken-{GENERATION}").exists():
    raise RuntimeError("broken on purpose")

asked = 0


def _is(what: str) -> bool:
    return Path(f"{what}-{GENERATION}").exists()


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer as the files say."""
    global asked  # noqa: PLW0603 - of the process
    if scope["type"] == "lifespan":
        while True:
            step = (await receive())["type"]
            await send({"type": f"{step}.complete"})
            if step == "lifespan.shutdown":
                return
    if scope["path"] == "/healthz":
        await _answer(send, 500 if _is("sick") else 200)
        return
    asked += 1
    errs = asked % EVERY == 0  # of this request: others come while it waits
    if _is("crash"):
        os._exit(3)
    await asyncio.sleep(SLOW if _is("slow") else USUAL)
    await _answer(send, 500 if errs and _is("errors") else 200)


async def _answer(send: Callable[[MutableMapping[str, Any]], Awaitable[None]], status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(WHO))]})
    await send({"type": "http.response.body", "body": WHO})
