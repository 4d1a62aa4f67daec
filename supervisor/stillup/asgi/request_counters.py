"""What is noted of each request and its answer: its status, bytes and time, and whether it ends at all.

1. A request is counted when its answer begins, before any byte of that is written, so that no client has seen more than
   was counted; or, if its connection ends before that, as aborted. An answer that is cut off is counted once more.
2. Every request pays for what stands here, and several times what it takes in a loop of its own, since the kernel has
   had the processor meanwhile. So it is as little as can be, and a write(2) that is spared pays for it.
"""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter_ns
from typing import Any, Final

from stillup.asgi import answer_sessions
from stillup.asgi.answer_sessions import HANDOFF
from stillup.asgi.lingering_close import LingeringCloseTransport
from stillup.wire.figure_cells import (
    ABORTED,
    ANSWERS,
    ANSWERS_UNDER_CORDON,
    CORDONED,
    CUT_OFF,
    DURATIONS,
    PER_CLASS,
    RECEIVED,
    SECOND,
    SENT,
    UNAVAILABLE,
    Cells,
)

_BOUNDS: Final = [round(bound * SECOND) for bound in DURATIONS]
_LEAST: Final = _BOUNDS[0]
_SUM: Final = len(DURATIONS) + 1
_FIRST: Final = {hundreds: ANSWERS + PER_CLASS * (hundreds - 1) for hundreds in range(1, ABORTED + 1)}
"""The first cell of each class of answers, by the hundreds of its status."""


_OF_STATUS: Final = {status: (_FIRST[status // 100], _FIRST[status // 100] + _SUM) for status in range(100, 600)}
"""The first cell and that of the sum by the whole status: one look-up, no division."""
_OF_ERRORS: Final = _OF_STATUS[500]
"""What is no status counts so, too."""
_of_status: Final = _OF_STATUS.get


def count_requests_of(module: Any) -> None:
    """Have each request count that a protocol of this module of uvicorn's serves: it looks the class for that up there.

    Once, however often it is called.
    """
    if not hasattr(module, "stillup_counts"):
        module.stillup_counts = True
        module.RequestResponseCycle = counting_cycle(module.RequestResponseCycle)
        module.service_unavailable = _counting_refusals(module.service_unavailable)


def counting_cycle(cycle: Any) -> Any:
    """The class of uvicorn's that has one request, made to count it."""
    run, give, take = cycle.run_asgi, cycle.send, cycle.receive

    # No coroutines of their own around uvicorn's, but for bodies that come.

    def run_asgi(self: Any, app: Any) -> Any:
        if (
            type(self.transport) is LingeringCloseTransport
        ):  # else nothing is counted: as of a server that is uvicorn's own
            self.began = perf_counter_ns()
            self.handoff = {}
            self.scope["extensions"] = {HANDOFF: self.handoff}
        return run(self, app)

    def send(self: Any, message: Any) -> Any:
        if self.response_started:
            if body := message.get("body"):
                if self.began:
                    self.transport.cells[SENT] += len(body)
            elif message["type"] == HANDOFF:
                return answer_sessions.hand_over(self, message)
        elif (began := self.began) and self.answer is None and message["type"] == "http.response.start":
            took = perf_counter_ns() - began
            transport = self.transport
            cells = transport.cells
            first, total = _of_status(message["status"], _OF_ERRORS)
            # Most are of the first bucket.
            cells[first if took <= _LEAST else first + bisect_left(_BOUNDS, took)] += 1
            cells[total] += took
            if cells[CORDONED]:
                cells[ANSWERS_UNDER_CORDON] += 1
            if type(message.get("headers")) is not list:  # an iterator can be read once, and that is not for us
                message = {**message, "headers": list(message.get("headers", ()))}
            self.answer = message
            if message.get("handoff"):
                answer_sessions.offer(self, message)
            transport.join()
        return give(self, message)

    async def receive(self: Any) -> Any:
        message = await take(self) if not (self.half_closed and self.took_all) else _NOTHING_MORE
        if self.took_all and message["type"] == "http.request":
            # Its client has shut down writing, and may be gone. From here on it is to this app.
            self.disconnected = True
            self.transport.close()
            return {"type": "http.disconnect"}
        self.took_all = not message.get("more_body", False)
        if (body := message.get("body")) and self.began:
            self.transport.cells[RECEIVED] += len(body)
            self.kept = answer_sessions.keep(self.kept, body)  # type: ignore[arg-type]
        return message

    members = {
        "run_asgi": run_asgi,
        "send": send,
        "receive": receive,
        "began": 0,
        "answer": None,
        "half_closed": False,
        "took_all": False,
        "handoff": None,
        "can_hand_over": False,
        "kept": b"",
    }
    return type(f"Counting{cycle.__name__}", (cycle,), members)


def _counting_refusals(service_unavailable: Any) -> Any:
    """The app of uvicorn's that answers in the place of a full site's, made to say that it is not the app's answer."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        cycle = send.__self__
        if cycle.began:
            cycle.transport.cells[UNAVAILABLE] += 1
        await service_unavailable(scope, receive, send)

    return refuse


def is_streaming(cycle: Any) -> bool:
    """Whether the head of the answer to a request is out, or on its way, and its body goes on."""
    return not cycle.response_complete and (cycle.response_started or cycle.answer is not None)


def is_event_source(cycle: Any) -> bool:
    """Whether a request is a GET that is answered by ``text/event-stream``, by what the app says of its answer."""
    if cycle.answer is None or cycle.scope["method"] != "GET":
        return False
    types = (value for name, value in cycle.answer["headers"] if name.lower() == b"content-type")
    return any(value.lower().startswith(_EVENTS) for value in types)


def cut_off(cells: Cells, cycle: Any) -> None:
    """Count the request in progress, if there is one, on a connection that has ended."""
    if cycle is None or cycle.response_complete:
        return
    if cycle.response_started or cycle.answer is not None:  # counted, though perhaps not written yet
        cells[CUT_OFF] += 1
        return
    began, cycle.began = cycle.began, 0
    count_answer(cells, ABORTED, began or perf_counter_ns())  # one that never came to the app began now


def answered_at_once(cells: Cells, hundreds: int) -> None:
    """Count what was answered before it was a request for the app."""
    count_answer(cells, hundreds, perf_counter_ns())


def count_answer(cells: Cells, hundreds: int, began: int) -> None:
    """Count an answer of that class, to what began then (``perf_counter_ns``)."""
    took = perf_counter_ns() - began
    first = _FIRST[hundreds]
    cells[first + bisect_left(_BOUNDS, took)] += 1
    cells[first + _SUM] += took


_EVENTS: Final = b"text/event-stream"
_NOTHING_MORE: Final = {"type": "http.request"}
