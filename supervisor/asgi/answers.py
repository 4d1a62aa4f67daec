"""What is noted of each request and its answer: its status, bytes and time, and whether it ends at all.

1. A request is counted when its answer begins, before any byte of that is written, so that no client has seen more than
   was counted; or, if its connection ends before that, as aborted. An answer that is cut off is counted once more.
2. Every request pays for what stands here, and several times what it takes in a loop of its own, since the kernel has
   had the processor meanwhile. So it is as little as can be: one closure, and none of uvicorn's methods.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, Final

from supervisor.wire.figures import (
    ABORTED,
    ANSWERS,
    CUT_OFF,
    DURATIONS,
    PER_CLASS,
    RECEIVED,
    SECOND,
    SENT,
    Cells,
)

_BOUNDS: Final = [round(bound * SECOND) for bound in DURATIONS]
_LEAST: Final = _BOUNDS[0]
_SUM: Final = len(DURATIONS) + 1
_FIRST: Final = {hundreds: ANSWERS + PER_CLASS * (hundreds - 1) for hundreds in range(1, ABORTED + 1)}
"""The first cell of each class of answers, by the hundreds of its status."""


class _OfStatus(dict[int, int]):
    """The first cell by the whole status: one look-up, and no division; what is no status counts as an error."""

    def __missing__(self, status: int) -> int:
        return _FIRST[5]


_OF_STATUS: Final = _OfStatus({status: _FIRST[status // 100] for status in range(100, 600)})
BEGAN: Final = "stillup.began"
"""In a request's scope: when it began, in nanoseconds of the performance counter; 0 once its client has gone."""
_ANSWER: Final = "stillup.answer"
"""The message with which its answer began."""
_ENDLESS: Final = b"text/event-stream"


def counting(app: Any, cells: Cells) -> Any:
    """The app, with each of its answers counted when it begins; the handshakes of WebSockets, too."""
    counting_handshake = partial(_handshake, app, cells)

    # No coroutine of its own around the app's.
    def counted(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            entered = counting_handshake if scope["type"] == "websocket" else app
            return entered(scope, receive, send)
        scope[BEGAN] = perf_counter_ns()

        def noted(message: Any) -> Any:
            if message["type"] == "http.response.start" and (began := scope[BEGAN]):
                took = perf_counter_ns() - began
                first = _OF_STATUS[message["status"]]
                # Most are of the first bucket.
                cells[first if took <= _LEAST else first + bisect_left(_BOUNDS, took)] += 1
                cells[first + _SUM] += took
                if type(message.get("headers")) is not list:  # an iterator can be read once, and that is not for us
                    message = {**message, "headers": list(message.get("headers", ()))}
                scope[_ANSWER] = message
            elif body := message.get("body"):
                cells[SENT] += len(body)
            return send(message)

        return app(scope, receive, noted)

    return counted


def is_endless(scope: Any) -> bool:
    """Whether a request is answered with a stream of events, by what the app says of its answer."""
    headers = scope[_ANSWER]["headers"] if _ANSWER in scope else ()
    return any(value.startswith(_ENDLESS) and name.lower() == b"content-type" for name, value in headers)


def counting_cycle(cycle: Any) -> Any:
    """The class of uvicorn's that has one request, made to count what it does without the app, and what that takes."""
    take, fail = cycle.receive, cycle.send_500_response

    async def receive(self: Any) -> Any:
        message = await take(self)
        if (body := message.get("body")) and (cells := _cells_of(self.transport)) is not None:
            cells[RECEIVED] += len(body)
        return message

    async def send_500_response(self: Any) -> None:
        if (cells := _cells_of(self.transport)) is not None:
            _answered(cells, 5, self.scope)
        await fail(self)

    return type(f"Counting{cycle.__name__}", (cycle,), {"receive": receive, "send_500_response": send_500_response})


def counting_refusals(unavailable: Any) -> Any:
    """Uvicorn's app that answers 503 to what is over the limit, with that counted."""

    def counted(scope: Any, receive: Any, send: Any) -> Any:
        if (cells := _cells_of(send.__self__.transport)) is not None:
            answered_at_once(cells, 5)
        return unavailable(scope, receive, send)

    return counted


def _cells_of(transport: Any) -> Cells | None:
    """Where it is counted; None on a connection of a server that is uvicorn's own, which has the same classes."""
    cells: Cells | None = getattr(transport, "cells", None)
    return cells


def cut_off(cells: Cells, cycle: Any) -> None:
    """Count the request in progress, if there is one, on a connection that has ended."""
    if cycle is None or cycle.response_complete:
        return
    if cycle.response_started:
        cells[CUT_OFF] += 1
    else:
        _answered(cells, ABORTED, cycle.scope)


def _answered(cells: Cells, hundreds: int, scope: Any) -> None:
    """Count a request whose answer has not begun; one that never came to the app began now."""
    began, scope[BEGAN] = scope.get(BEGAN, 0), 0
    _ended(cells, hundreds, began or perf_counter_ns())


def answered_at_once(cells: Cells, hundreds: int) -> None:
    """Count what was answered before it was a request for the app."""
    _ended(cells, hundreds, perf_counter_ns())


def _ended(cells: Cells, hundreds: int, began: int) -> None:
    took = perf_counter_ns() - began
    first = _FIRST[hundreds]
    cells[first + bisect_left(_BOUNDS, took)] += 1
    cells[first + _SUM] += took


_REFUSED: Final = 4
_FAILED: Final = 5


async def _handshake(app: Any, cells: Cells, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    began = perf_counter_ns()
    answered = False

    def answer(hundreds: int) -> None:
        nonlocal answered
        if not answered:
            answered = True
            _ended(cells, hundreds, began)

    def noted(message: Any) -> Awaitable[None]:
        match message["type"]:
            case "websocket.accept":
                answer(1)
            case "websocket.close":
                answer(_REFUSED)
            case "websocket.http.response.start":
                answer(message["status"] // 100)
        return send(message)

    try:
        await app(scope, receive, noted)
    finally:
        answer(_FAILED)  # uvicorn says so to a client that is still there
