"""The kinds of request in the load, each a moment at which a reload could drop one.

A *kept* client uses one connection for all its requests, as long as the server lets it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.connection import Answer, Connection, NoAnswer

LATE = 0.4  # seconds, at most, before the late part of `unread`, `half_head` and `next_half` is sent
BACKGROUND = 0.3  # seconds that the application works on after it has answered `background`
SLICE, SLICES = b"x" * 8192, 10
EVENTS = 10
PIPELINED = 3
NUMBERS = 10**9  # that pipelined requests choose from, so that no answer is right by chance


@dataclass(frozen=True)
class Pace:
    """For how long the slow kinds take their server's time, and `idle` is silent, in seconds.

    `upload`, `early` and `silence` are means; none takes more than twice that. Servers close a connection
    that was silent for 2 s (gunicorn) or 5 s (uvicorn): what is silent for longer is closed by right.
    """

    slow: float = 0.7
    upload: float = 1.0
    stream: float = 1.0
    early: float = 0.2
    silence: float = 1.5


@dataclass(frozen=True)
class Terms:
    """What a client goes by: its chance, its pace, and the body of `/` and `/slow` (None: any)."""

    random: Random
    pace: Pace
    body: bytes | None


def _request(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: stillup.test", *headers, "", ""]).encode()


GET = _request("GET /")
GET_ONCE = _request("GET /", "Connection: close")
GET_BACKGROUND = _request(f"GET /background?ms={BACKGROUND * 1000:.0f}")
POST_UPLOAD = _request("POST /upload", f"Content-Length: {len(SLICE) * SLICES}")
POST_EARLY = _request("POST /early", f"Content-Length: {len(SLICE) * SLICES}")


async def _once(connection: Connection, terms: Terms) -> list[Answer]:
    await connection.send(GET_ONCE)
    return [await _answer(connection, terms)]


async def _late(connection: Connection, terms: Terms) -> list[Answer]:
    """Leave the connection silent for a while: its server has nothing to read yet."""
    connection.phase = "send"
    await asyncio.sleep(terms.random.uniform(0, LATE))
    return await _once(connection, terms)


async def _halves(connection: Connection, terms: Terms, request: bytes = GET_ONCE) -> list[Answer]:
    """Stop for a while in the middle of the request head."""
    half = len(request) // 2
    await connection.send(request[:half])
    await asyncio.sleep(terms.random.uniform(0, LATE))
    await connection.send(request[half:])
    return [await _answer(connection, terms)]


async def _next_halves(connection: Connection, terms: Terms) -> list[Answer]:
    return await _halves(connection, terms, GET)


async def _get(connection: Connection, terms: Terms) -> list[Answer]:
    await connection.send(GET)
    return [await _answer(connection, terms)]


async def _pipeline(connection: Connection, terms: Terms) -> list[Answer]:
    """Write several requests at once; each answer must be that of its request."""
    numbers = [b"%d" % terms.random.randrange(NUMBERS) for _ in range(PIPELINED)]
    await connection.send(b"".join(_request(f"GET /echo?n={number.decode()}") for number in numbers))
    answers = await connection.answers(PIPELINED)
    for number, answer in zip(numbers, answers, strict=True):
        _demand(answer, correct=answer.body == number)
    return answers


async def _body_after_answer(connection: Connection, terms: Terms) -> list[Answer]:
    """Send a body only when the answer to it has come, and then ask for something else."""
    await connection.send(POST_EARLY)
    answers = [await _answer(connection, terms)]
    try:
        await _slices(connection, terms, terms.pace.early)
    except NoAnswer:
        # The server left after a whole answer: nothing was asked, so this is a close and no failure.
        return answers
    if answers[0].closes or connection.ended_by_server():
        return answers
    return answers + await _get(connection, terms)


async def _background(connection: Connection, terms: Terms) -> list[Answer]:
    """Ask for work that goes on when the answer is here."""
    await connection.send(GET_BACKGROUND)
    return [await _answer(connection, terms)]


async def _slow(connection: Connection, terms: Terms) -> list[Answer]:
    await connection.send(_request(f"GET /slow?ms={terms.pace.slow * 1000:.0f}"))
    return [await _answer(connection, terms)]


async def _upload(connection: Connection, terms: Terms) -> list[Answer]:
    """Send a body of declared length in slices."""
    await connection.send(POST_UPLOAD)
    await _slices(connection, terms, terms.pace.upload)
    answer = await connection.answer()
    _demand(answer, correct=_counts_upload(answer.body))
    return [answer]


async def _slices(connection: Connection, terms: Terms, seconds: float) -> None:
    for _ in range(SLICES):
        await asyncio.sleep(seconds / SLICES * terms.random.uniform(0.5, 1.5))
        await connection.send(SLICE)


def _counts_upload(body: bytes) -> bool:
    try:
        return bool(json.loads(body) == {"bytes": len(SLICE) * SLICES})
    except ValueError:
        return False


def _streamed(query: str, mark: bytes) -> Callable[[Connection, Terms], Awaitable[list[Answer]]]:
    """Ask for an answer in chunks; `mark` is what stands in each."""

    async def ask(connection: Connection, terms: Terms) -> list[Answer]:
        line = f"GET /stream?n={EVENTS}&ms={terms.pace.stream * 1000 / EVENTS:.0f}{query}"
        await connection.send(_request(line, "Accept: text/event-stream, text/plain"))
        answer = await connection.answer()
        # A stream that the server cuts short can still end with a proper last chunk.
        _demand(answer, correct=answer.body.count(mark) >= EVENTS)
        return [answer]

    return ask


async def _answer(connection: Connection, terms: Terms) -> Answer:
    answer = await connection.answer()
    _demand(answer, correct=terms.body in (None, answer.body))
    return answer


def _demand(answer: Answer, *, correct: bool) -> None:
    if not correct:
        raise NoAnswer(f"wrong body: {answer.body[:40]!r}")


@dataclass(frozen=True)
class Kind:
    """How a client of this kind takes its turn: `ask` returns the whole and correct answers it got, at least one.

    `silent` clients wait for `Pace.silence` after a turn, the others for the mix's think time.
    """

    ask: Callable[[Connection, Terms], Awaitable[Sequence[Answer]]]
    kept: bool = True
    silent: bool = False


KINDS = {
    "fresh": Kind(_once, kept=False),
    "unread": Kind(_late, kept=False),
    "half_head": Kind(_halves, kept=False),
    "keepalive": Kind(_get),
    "idle": Kind(_get, silent=True),
    "pipelined": Kind(_pipeline),
    "next_half": Kind(_next_halves),
    "early": Kind(_body_after_answer),
    "background": Kind(_background),
    "slow": Kind(_slow),
    "upload": Kind(_upload),
    "stream": Kind(_streamed("", b"data:")),
    "chunked": Kind(_streamed("&type=plain", b"\n")),
}
