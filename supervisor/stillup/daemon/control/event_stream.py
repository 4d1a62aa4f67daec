"""The answer to ``GET /v1/events``: the history, and with ``follow`` what comes, as NDJSON or as an event stream (SSE).

A reader is a cursor (``state.history``); one that does not read holds up nothing but the task that answers it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Final

from starlette.responses import Response

from stillup.daemon.control.api import Call
from stillup.daemon.control.request_limits import LastingRequests, LastingResponse
from stillup.daemon.state.history import History
from stillup.errors import UsageError
from stillup.wire.api_operation import NDJSON, SSE

LONGEST_NUMBER: Final = 19
"""Digits from which on a number is none of ours."""


def answer(call: Call, history: History, lasting: LastingRequests) -> Response:
    """Tell what has happened.

    Raises:
        UsageError: the number of the last event that the caller has is none.
    """
    headers = call.request.headers
    sse = _wants_sse(headers.get("accept", ""))
    since: int | None = call.values.get("since")
    if (last := headers.get("last-event-id")) is not None:
        # An EventSource that comes again says it so, with the parameters that it began with.
        since = int(last) if len(last) < LONGEST_NUMBER and last.isascii() and last.isdigit() else -1
    if since is not None and since < 0:
        raise UsageError("since, and Last-Event-ID, are the number of an event, such as 17")
    media_type, said = SSE if sse else NDJSON, {"cache-control": "no-store"}
    if call.request.method == "HEAD":
        return Response(None, 200, said, media_type)
    follow = call.values.get("follow", sse)
    told = _told(history, since, follow=follow, sse=sse)
    return LastingResponse(told, lasting.one_more(call.principal.uid) if follow else nullcontext(), media_type)


async def _told(history: History, since: int | None, *, follow: bool, sse: bool) -> AsyncIterator[bytes]:
    async for batch in history.read(since, follow=follow):
        yield b"".join(each.sse if sse else each.ndjson for each in batch)


def _wants_sse(accept: str) -> bool:
    """Whether the first media type of ours that is named is the event stream's; an EventSource names no other."""
    named = (one.partition(";")[0].strip().lower() for one in accept.split(","))
    return next((one for one in named if one in (NDJSON, SSE)), NDJSON) == SSE
