"""Tracing: the messages on handoff.sock and control.sock, as tracers see them. Unix sockets have no tcpdump.

1. Without a tracer no tap is set, and a message costs one ``if``.
2. A tracer never makes the supervisor wait: its lines wait in a queue of at most MOST_LINES, and what finds no room is
   counted. The count stands in the stream where the lines would have stood.
3. Descriptors are described while they are sure to be open: before the sender or receiver goes on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillup.core.access import Principal
from stillup.daemon.control.request_limits import LastingResponse
from stillup.errors import Refused
from stillup.host import peer
from stillup.host.channel import Tap
from stillup.host.describe import describe
from stillup.wire import trace_messages
from stillup.wire.api_operation import NDJSON
from stillup.wire.trace_messages import TracedMessage, TraceGap

logger = logging.getLogger("stillup")

MOST_TRACERS: Final = 4
"""At a time: each has its own copy of every line."""
MOST_LINES: Final = 256
"""Lines that wait for a tracer."""
LONGEST_PATH: Final = 200
"""Characters of a request's path that are shown."""
_CONTROL: Final[Mapping[str, Any]] = {"socket": "control", "descriptors": []}


class Tracer:
    """One client that traces: the lines that wait to be sent to it."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._missed = 0
        self._ended = False
        self._news = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return len(self._lines) < MOST_LINES

    def tell(self, line: bytes) -> None:
        """Append a line; if there is no room, count it."""
        self._news.set()
        if not self.has_room:
            self._missed += 1
            return
        self._tell_missed()
        self._lines.append(line)

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._news.set()

    def _tell_missed(self) -> None:
        if self._missed:
            self._lines.append(trace_messages.encode(TraceGap(self._missed)))
            self._missed = 0

    async def lines(self) -> AsyncIterator[bytes]:
        """Each line when it is there, until the end."""
        while True:
            while self._lines:
                yield self._lines.popleft()
                if not self._lines:
                    self._tell_missed()
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()


class Trace:
    """All tracers: ``tap`` shows them the channels on ``handoff.sock``, ``traced`` the app behind ``control.sock``."""

    def __init__(self, worker_of: Callable[[int], str], tap: Tap | None = None) -> None:
        """``worker_of``: the name of the worker with that pid, or empty; ``tap``: of the hand-off channels."""
        self._worker_of = worker_of
        self._tracers: set[Tracer] = set()
        self.tap = tap or Tap()

    @property
    def looked_at(self) -> bool:
        return bool(self._tracers)

    def join(self) -> Tracer:
        """Add a tracer, which is to ``leave``.

        Raises:
            Refused: there are MOST_TRACERS.
        """
        if len(self._tracers) >= MOST_TRACERS:
            raise Refused(f"{MOST_TRACERS} traces are under way; end one of them first", code="unavailable")
        tracer = Tracer()
        self._tracers.add(tracer)
        self.tap.look = self._packet
        return tracer

    def leave(self, tracer: Tracer) -> None:
        self._tracers.discard(tracer)
        if not self._tracers:
            self.tap.look = None

    def end(self) -> None:
        """Let every stream come to its end, since the supervisor does."""
        for tracer in self._tracers:
            tracer.end()

    def _packet(self, sock: socket.socket, direction: str, packet: bytes, fds: Sequence[int]) -> None:
        if not self._wanted():
            return
        try:
            who = peer.principal(sock)
            kind, fields = trace_messages.handoff_message(direction, packet)
            self._tell(
                who,
                socket="handoff",
                direction=direction,
                type=kind,
                size=len(packet),
                fields=fields,
                descriptors=[describe(fd) for fd in fds],
            )
        except Exception:
            # A tracer must not break what it looks at: the packet is taken, and its descriptors with it.
            logger.exception("a message on handoff.sock cannot be traced")

    def traced(self, app: ASGIApp) -> ASGIApp:
        """The same app; each request to it, and each answer, is shown to tracers."""

        async def app_traced(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, self._request(scope, send) if self._tracers else send)

        return app_traced

    def _request(self, scope: Scope, send: Send) -> Send:
        """Show the request; what is sent through what is returned is shown as its answer."""
        who: Principal = scope["state"]["identity"].principal
        fields = {"method": scope["method"], "path": scope["path"][:LONGEST_PATH]}
        if self._wanted():
            self._tell(who, **_CONTROL, direction="in", type="request", size=_length(scope, 0), fields=fields)

        async def send_traced(message: Message) -> None:
            if message["type"] == "http.response.start" and self._wanted():
                answer = {**fields, "status": message["status"]}
                size = _length(message, None)
                self._tell(who, **_CONTROL, direction="out", type="response", size=size, fields=answer)
            await send(message)

        return send_traced

    def _wanted(self) -> bool:
        """Whether anybody has room; else it is counted, and nobody needs to know what it was."""
        if any(tracer.has_room for tracer in self._tracers):
            return True
        for tracer in self._tracers:
            tracer.tell(b"")
        return False

    def _tell(self, who: Principal, **said: Any) -> None:
        """Tell a message of ``who``; ``said`` is the rest of it."""
        worker = self._worker_of(who.pid)
        line = trace_messages.encode(TracedMessage(time=time.time(), pid=who.pid, uid=who.uid, worker=worker, **said))
        for tracer in self._tracers:
            tracer.tell(line)


class TraceResponse(LastingResponse):
    """The stream to one tracer, until it hangs up."""

    def __init__(self, hub: Trace, held: AbstractContextManager[None]) -> None:
        """Join ``hub``, and stream while ``held`` is; it has to be called, so that the tracer leaves.

        Raises:
            Refused: there are MOST_TRACERS.
        """
        self._hub = hub
        self._tracer = hub.join()
        super().__init__(self._tracer.lines(), held, NDJSON)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines. Not the generator's end but this one's is the tracer's: it may never have been begun."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.leave(self._tracer)


def _length(message: Scope | Message, default: int | None) -> int | None:
    """The body's length, as far as the headers say it."""
    headers: Mapping[bytes, bytes] = dict(message.get("headers", ()))
    text = headers.get(b"content-length", b"")
    return int(text) if text.isdigit() else default
