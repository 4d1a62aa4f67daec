"""A chat whose members stay over reloads, and a story that is told to its end.

Try it in a browser, in two windows, while its code is replaced::

    $ stillup run app_example.chat:app --name chat --bind 127.0.0.1:8000
    $ stillup reload --name chat

There is one room, in the process: with several workers each has its own, and they would need a bus between them. A room
is what its members bring along: who goes on in the next worker brings the lines that were said last. So nothing is
missed while some members are still in the worker before: what is said there comes with whoever moves after that.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from stillup.app import Resumable, ResumableWebSocket, current, resume

LAST: Final = 50
"""Lines that a room knows."""
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


class Membership(TypedDict):
    """What a member takes along to the next worker."""

    seen: list[str]
    """The ids of the lines that were sent."""
    lines: dict[str, str]
    """Those of the room; one and the same for all of its members."""


class Room:
    """The lines that were said last, by their ids, the oldest first."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self._more = asyncio.Event()

    def say(self, line: str) -> None:
        self.learn({uuid.uuid4().hex: line})

    def learn(self, lines: dict[str, str]) -> None:
        """Take in lines that may be known; whoever waits for more is woken."""
        for line_id, line in lines.items():
            self.lines.setdefault(line_id, line)
        for line_id in list(islice(self.lines, max(0, len(self.lines) - LAST))):
            del self.lines[line_id]
        self._more.set()
        self._more = asyncio.Event()

    async def deliver(self, member: ResumableWebSocket[Membership]) -> None:
        """Send a member each line that it has not seen, until it leaves."""
        seen = member.state["seen"]
        with suppress(WebSocketDisconnect):
            while True:
                more = self._more
                for line_id, line in list(self.lines.items()):
                    if line_id not in seen:
                        await member.send_json({"line": line})
                        seen.append(line_id)  # right after the send: it is in the state, or was not sent
                del seen[: -2 * LAST]
                await more.wait()


room = Room()


async def chat(websocket: WebSocket) -> None:
    """One member's connection."""
    name = websocket.query_params.get("name", "")[:20] or "somebody"
    member = await resume(websocket, Membership(seen=[], lines={}))
    room.learn(member.state["lines"])
    member.state["lines"] = room.lines
    await member.send_json({"worker": f"{current().generation}.{current().worker}"})
    if member.is_new:
        room.say(f"{name} has come")
    delivering = asyncio.create_task(room.deliver(member))
    try:
        async for text in member.iter_text():
            room.say(f"{name}: {text[:LONGEST]}")
    finally:
        delivering.cancel()
    if not member.handed_over:
        room.say(f"{name} has left")


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
