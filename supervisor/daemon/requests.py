"""Requests at the door: whole ones, not too large, and not more than can be answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from supervisor.daemon import answers
from supervisor.wire.operations import API_HEADER, version

MOST_BODY: Final = 64 * 1024
"""Bytes of a request's body, which is read and dropped: no operation has a use for one."""


class WholeRequests:
    """Reads each request to its end before the app behind it answers.

    So who trickles a body is somebody who is still asking, and nothing that comes later can be taken for a part of it.
    """

    def __init__(self, app: ASGIApp, has_room: Callable[[int, Counter[int]], bool]) -> None:
        """Hand the app what ``has_room`` lets in, asked once a request: of which uid it is, and what others are there.

        They are counted by uid. Who asks is in ``scope["state"]["identity"]``.
        """
        self._app = app
        self._has_room = has_room
        self._answering: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more and size <= MOST_BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
        if size > MOST_BODY:
            detail = f"a body of more than {MOST_BODY} bytes: no operation has a use for one"
            await _refuse("too-large", detail)(scope, receive, send)
            return
        uid = scope["state"]["identity"].principal.uid
        if not self._has_room(uid, self._answering):
            await _refuse("unavailable", "too many requests wait for their answers")(scope, receive, send)
            return
        self._answering[uid] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._answering[uid] -= 1


def malformed(what: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body of the answer to what is no HTTP request."""
    response = _refuse("usage", f"that is no HTTP/1.1 request: {what}")
    return response.raw_headers, bytes(response.body)


def _refuse(code: str, detail: str) -> Response:
    """An answer after which the connection closes: more of its request may come."""
    response = answers.problem(code, detail)
    response.headers["Connection"] = "close"
    response.headers[API_HEADER] = version()
    return response
