"""A chat whose members stay over reloads, and a story that is told to its end.

Try it in a browser, in two windows, while its code is replaced::

    $ stillup run app_example.chat:app --name chat --bind 127.0.0.1:8000
    $ stillup reload --name chat

There is one room. It is in the process, so that there is one a worker; with REDIS_URL (``redis://localhost``) it is in
Redis, for all workers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from app_example.rooms import LocalRoom, Member, RedisRoom, Room
from stillup.app import Resumable, current, resume

LONGEST: Final = 500
"""Characters of one."""
STORY: Final = (
    "Once upon a time there was a service that nobody dared to touch. Its owners deployed at night, and still somebody "
    "noticed. One day they let the old worker tell its story up to a word, and the new one from the next word on. "
    "Nobody in the audience turned a head, and they deployed at noon ever after."
)
PAUSE: Final = 0.2
"""Seconds between two words."""
PAGE: Final = Path(__file__).with_name("chat.html")


def _room() -> Room:
    url = os.environ.get("REDIS_URL")
    if url is None:
        return LocalRoom()
    from redis.asyncio import Redis  # noqa: PLC0415 - who needs no Redis need not have it installed

    return RedisRoom(Redis.from_url(url, decode_responses=True))


room = _room()


async def chat(websocket: WebSocket) -> None:
    """One member's connection."""
    name = websocket.query_params.get("name", "")[:20] or "somebody"
    member: Member = await resume(websocket, {})
    await room.enter(member)
    await member.send_json({"worker": f"{current().generation}.{current().worker}"})
    if member.is_new:
        await room.say(f"{name} has come")
    delivering = asyncio.create_task(room.deliver(member))
    try:
        async for text in member.iter_text():
            await room.say(f"{name}: {text[:LONGEST]}")
    finally:
        delivering.cancel()
    if not member.handed_over:
        await room.say(f"{name} has left")


async def story(request: Request) -> Response:
    """Tell it word by word; the next worker goes on with the word after the last one that was sent."""

    async def words(start: int) -> AsyncIterator[tuple[str, int]]:
        for number, word in enumerate(STORY.split()[start:], start):
            await asyncio.sleep(PAUSE)
            yield f"{word} ", number + 1

    return Resumable(request, words, 0, media_type="text/plain")


async def page(_: Request) -> Response:
    return HTMLResponse(await asyncio.to_thread(PAGE.read_text, "utf-8"))


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


app = Starlette(
    routes=[
        Route("/", page),
        Route("/healthz", healthz),
        Route("/story", story, methods=["POST"]),
        WebSocketRoute("/chat", chat),
    ]
)
