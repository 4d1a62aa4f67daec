"""An app that streams tokens, which go on in the next worker; ``/charged`` says who was charged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from stillup.app import Resumable, current

PAUSE = 0.01
"""Seconds that a token takes."""


def charge(client: int) -> None:
    with Path("charged").open("a", encoding="ascii") as file:
        file.write(f"{client}\n")


async def at_gate(gate: Path) -> None:
    """Say that it was reached, and wait until it is there."""
    gate.with_suffix(".reached").touch()
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - the test makes it, in another process
        await asyncio.sleep(PAUSE)


async def tokens(request: Request) -> Response:
    """As many tokens as the body says, each with the generation that it comes from; it charges once.

    With ``gate`` the answer begins when there is a file of that name.
    """
    asked = await request.json()
    if not current().resuming:
        charge(asked["client"])
        if "gate" in asked:
            await at_gate(Path(asked["gate"]))

    async def stream(start: int) -> AsyncIterator[tuple[str, int]]:
        for number in range(start, asked["tokens"]):
            await asyncio.sleep(PAUSE)
            yield f"{number} {current().generation}\n", number + 1

    return Resumable(request, stream, 0, media_type="text/plain")


async def health(_: Request) -> Response:
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/tokens", tokens, methods=["POST"]), Route("/healthz", health)])
