"""Requests as they come in: whole ones, not too large, and not more than can be answered."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillup.core.access import OVERFLOW_UID, Principal
from stillup.core.caller_limits import Limits, may_last
from stillup.daemon.control import responses
from stillup.daemon.control.peer_identities import Identity
from stillup.errors import Unavailable
from stillup.wire.api_version import API_HEADER, version

MOST_BODY: Final = 64 * 1024
"""Bytes of a request's body, which is read and dropped: no operation has a use for one."""


WITHOUT_RIGHT: Final = 50
"""Requests a second of callers without a right, before these have to wait: what they ask is to cost others little."""


class WholeRequests:
    """Reads each request to its end before the app behind it answers.

    So who trickles a body is somebody who is still asking, and nothing that comes later can be taken for a part of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        has_room: Callable[[int, Counter[int]], bool],
        has_right: Callable[[Principal], bool] = lambda _: True,
    ) -> None:
        """Hand the app what ``has_room`` lets in, asked once a request: of which uid it is, and what others are there.

        They are counted by uid. Who asks is in ``scope["state"]["identity"]``; ``has_right`` says whether that caller
        may ask again on the same connection.
        """
        self._app = app
        self._has_right = has_right
        self._has_room = has_room
        self._answering: Counter[int] = Counter()
        self._asked: deque[float] = deque(maxlen=WITHOUT_RIGHT)
        """When those without a right did."""
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity: Identity = scope["state"]["identity"]
        who = identity.known()
        if _has_body(scope) and (who.uid == OVERFLOW_UID or not self._has_right(who)):
            # One of small chunks takes seconds to parse. At --admin-bind, too, nobody is known who asks.
            detail = "a body, of a caller without a role: it is not read, and no operation has a use for one"
            await _refuse("not-permitted", detail)(scope, receive, send)
            return
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
        if not self._has_right(await identity.seen()) and not await self._one_after_another():
            await _refuse("unavailable", "busy: too many callers without a role ask")(scope, receive, send)
            return
        uid = identity.principal.uid
        if not self._has_room(uid, self._answering):
            await _refuse("unavailable", "busy: too many requests wait for their answers")(scope, receive, send)
            return
        self._answering[uid] += 1
        try:
            await self._app(scope, receive, self._once(scope, send))
        finally:
            self._answering[uid] -= 1

    async def _one_after_another(self) -> bool:
        """Let those without a right ask so often a second, all of them together; beyond that some wait, others may not.

        Whether this one may.
        """
        now = asyncio.get_running_loop().time()
        while self._asked and now - self._asked[0] >= 1:
            self._asked.popleft()
        if len(self._asked) >= WITHOUT_RIGHT:
            if self._waiting >= WITHOUT_RIGHT:
                return False
            self._waiting += 1
            await asyncio.sleep(1)
            self._waiting -= 1
        self._asked.append(now)
        return True

    def _once(self, scope: Scope, send: Send) -> Send:
        """Send; what a caller is sent who has no right is the last that comes on this connection."""

        async def send_once(message: Message) -> None:
            # Not before: the app has waited for a look at the caller, which may be a worker's child.
            if message["type"] == "http.response.start" and not self._has_right(scope["state"]["identity"].known()):
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        return send_once


def _has_body(scope: Scope) -> bool:
    framing = dict(scope["headers"])
    return b"transfer-encoding" in framing or framing.get(b"content-length", b"0") != b"0"


class LastingRequests:
    """Those that may go on for long: counted by user, so that there is always room for others."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count: Counter[int] = Counter()

    @contextmanager
    def one_more(self, uid: int) -> Iterator[None]:
        """While this lasts, one more of that user goes on.

        Raises:
            Unavailable: too many do.
        """
        if not may_last(uid, self._count, self._limits):
            message = f"busy: {self._count[uid]} requests of uid {uid} follow, trace or wait for an outcome already"
            raise Unavailable(message)
        self._count[uid] += 1
        try:
            yield
        finally:
            self._count[uid] -= 1


class LastingResponse(StreamingResponse):
    """A stream that goes on for as long as its reader likes, if there is room for one more."""

    def __init__(self, content: AsyncIterator[bytes], held: AbstractContextManager[None], media_type: str) -> None:
        """Send ``content`` while ``held`` is."""
        self._held = held
        super().__init__(content, 200, {"cache-control": "no-store"}, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # By later versions of ASGI Starlette notices that a client has left only when it sends something. One that
        # follows may be sent nothing for days.
        try:
            with self._held:
                await super().__call__({**scope, "asgi": {**scope["asgi"], "spec_version": "2.3"}}, receive, send)
        except Unavailable as refusal:
            await responses.refused(refusal)(scope, receive, send)


def turn_away(sock: socket.socket, why: str) -> None:
    """Tell a client that there is no room for it, before its connection is closed. Never blocks, never raises."""
    with suppress(OSError):
        # What is not read would make the close a reset, which over TCP takes the answer with it.
        sock.recv(MOST_BODY, socket.MSG_DONTWAIT)
    with suppress(OSError):
        sock.send(_no_room(why), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sock.shutdown(socket.SHUT_WR)


@lru_cache(maxsize=64)
def _no_room(why: str) -> bytes:
    """A whole answer; one who is turned away comes again, and it is the same."""
    response = _refuse("unavailable", why)
    lines = [b"HTTP/1.1 503 Service Unavailable", *(b": ".join(header) for header in response.raw_headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


def malformed(what: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and the body of the answer to what is no HTTP request."""
    response = _refuse("usage", f"that is no HTTP/1.1 request: {what}")
    return response.raw_headers, bytes(response.body)


def _refuse(code: str, detail: str) -> Response:
    """An answer after which the connection closes: more of its request may come."""
    response = responses.problem(code, detail)
    response.headers["Connection"] = "close"
    response.headers[API_HEADER] = version()
    return response
