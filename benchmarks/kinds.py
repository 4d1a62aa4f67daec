"""The kinds of request in the load, each a moment at which a reload could drop one."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from benchmarks.connection import Answer, Connection

LATE = 0.4  # seconds, at most, before the late part of `unread` and `half_head` is sent
SLOW_MS = 700
SLICE, SLICES, SLICE_PAUSE = b"x" * 8192, 10, 0.1
EVENTS, EVENT_MS = 10, 100


def _request(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: stillup.test", *headers, "", ""]).encode()


GET = _request("GET /")
GET_ONCE = _request("GET /", "Connection: close")
GET_SLOW = _request(f"GET /slow?ms={SLOW_MS}")
GET_STREAM = _request(f"GET /stream?n={EVENTS}&ms={EVENT_MS}", "Accept: text/event-stream")
POST_UPLOAD = _request("POST /upload", f"Content-Length: {len(SLICE) * SLICES}")


async def _send_late(connection: Connection, random: Random) -> None:
    """Leave the connection silent for a while: its server has nothing to read yet."""
    connection.phase = "send"
    await asyncio.sleep(random.uniform(0, LATE))
    await connection.send(GET_ONCE)


async def _send_halves(connection: Connection, random: Random) -> None:
    """Stop for a while in the middle of the request head."""
    half = len(GET_ONCE) // 2
    await connection.send(GET_ONCE[:half])
    await asyncio.sleep(random.uniform(0, LATE))
    await connection.send(GET_ONCE[half:])


async def _send_upload(connection: Connection, random: Random) -> None:
    """Send a body of declared length in slices, over about a second."""
    await connection.send(POST_UPLOAD)
    for _ in range(SLICES):
        await asyncio.sleep(SLICE_PAUSE * random.uniform(0.5, 1.5))
        await connection.send(SLICE)


def _send(request: bytes) -> Callable[[Connection, Random], Awaitable[None]]:
    return lambda connection, _: connection.send(request)


def _counts_upload(answer: Answer) -> bool:
    try:
        return bool(json.loads(answer.body) == {"bytes": len(SLICE) * SLICES})
    except ValueError:
        return False


def _has_every_event(answer: Answer) -> bool:
    # A stream that the server cuts short can still end with a proper last chunk.
    return answer.body.count(b"data:") >= EVENTS


@dataclass(frozen=True)
class Kind:
    """How a client of this kind sends a request, and what it takes for a correct answer.

    `correct=None` leaves the body to Load, which knows what the application answers.
    """

    send: Callable[[Connection, Random], Awaitable[None]]
    keeps_connection: bool
    correct: Callable[[Answer], bool] | None = None


KINDS = {
    "fresh": Kind(_send(GET_ONCE), keeps_connection=False),
    "unread": Kind(_send_late, keeps_connection=False),
    "half_head": Kind(_send_halves, keeps_connection=False),
    "keepalive": Kind(_send(GET), keeps_connection=True),
    "slow": Kind(_send(GET_SLOW), keeps_connection=True),
    "upload": Kind(_send_upload, keeps_connection=True, correct=_counts_upload),
    "stream": Kind(_send(GET_STREAM), keeps_connection=True, correct=_has_every_event),
}
