"""Where the chat's lines are: in the worker's own memory, or in a Redis stream for all workers."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.websockets import WebSocketDisconnect

from stillup.app import ResumableWebSocket

if TYPE_CHECKING:
    from redis.asyncio import Redis

LAST: Final = 50
"""Lines that a newcomer is shown."""
KEPT: Final = 1000
"""Lines that the stream keeps, and that a member may be behind."""
STREAM: Final = "chat"

Member = ResumableWebSocket[dict[str, Any]]


class Room(Protocol):
    """What the chat asks of a room."""

    async def enter(self, member: Member) -> None:
        """Begin with one who is new, or who comes from another worker; before anything it says."""

    async def say(self, line: str) -> None:
        """Have everybody see a line."""

    async def deliver(self, member: Member) -> None:
        """Send a member each line that it has not seen, until it leaves; its state says what it has seen."""


class LocalRoom:
    """A room in the process. With several workers each has its own.

    It is what its members bring along: who goes on in the next worker brings the lines that were said last. So nothing
    is missed while some members are still in the worker before: what is said there comes with whoever moves after that.
    """

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        """Those that were said last, by their ids, the oldest first."""
        self._more = asyncio.Event()

    async def enter(self, member: Member) -> None:
        member.state.setdefault("seen", [])
        self._learn(member.state.get("lines", {}))
        member.state["lines"] = self._lines  # one and the same for all members

    async def say(self, line: str) -> None:
        self._learn({uuid.uuid4().hex: line})

    def _learn(self, lines: dict[str, str]) -> None:
        for line_id, line in lines.items():
            self._lines.setdefault(line_id, line)
        for line_id in list(islice(self._lines, max(0, len(self._lines) - LAST))):
            del self._lines[line_id]
        self._more.set()
        self._more = asyncio.Event()

    async def deliver(self, member: Member) -> None:
        seen = member.state["seen"]
        with suppress(WebSocketDisconnect):
            while True:
                more = self._more
                for line_id, line in list(self._lines.items()):
                    if line_id not in seen:
                        await member.send_json({"line": line})
                        seen.append(line_id)  # right after the send: it is in the state, or was not sent
                del seen[: -2 * LAST]
                await more.wait()


class RedisRoom:
    """A room of all workers: a Redis stream. A member takes along how far it has read."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def enter(self, member: Member) -> None:
        if member.is_new:
            last: Any = await self._redis.xrevrange(STREAM, count=LAST + 1)
            member.state["last"] = last[LAST][0] if len(last) > LAST else "0"

    async def say(self, line: str) -> None:
        await self._redis.xadd(STREAM, {"line": line}, maxlen=KEPT)

    async def deliver(self, member: Member) -> None:
        with suppress(WebSocketDisconnect):
            while True:
                read: Any = await self._redis.xread({STREAM: member.state["last"]}, block=0)
                for _, entries in read:
                    for line_id, fields in entries:
                        await member.send_json({"line": fields["line"]})
                        member.state["last"] = line_id  # right after the send, as above
