"""Who looks at the messages on the two sockets, and what they are told: Unix sockets have no tcpdump.

1. While nobody looks, no tap is set, and a message costs one ``if``.
2. A tracer never makes the supervisor wait: its lines wait in a queue of at most MOST_LINES, and what finds no room is
   counted. The count stands in the stream where the lines would have stood.
3. Descriptors are described while they are sure to be open: before whoever sent or received them goes on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supervisor.core.access import Principal
from supervisor.errors import Refused
from supervisor.host import peer
from supervisor.host.channel import Tap
from supervisor.host.describe import describe
from supervisor.wire import trace
from supervisor.wire.operations import NDJSON
from supervisor.wire.trace import TracedMessage, TraceGap

logger = logging.getLogger("stillup")

MOST_TRACERS: Final = 4
"""At a time: each has its own copy of every line."""
MOST_LINES: Final = 256
"""Lines that wait for a tracer."""
LONGEST_PATH: Final = 200
"""Characters of a request's path that are shown."""
_CONTROL: Final[Mapping[str, Any]] = {"socket": "control", "descriptors": []}


class Tracer:
    """One who looks: the lines that wait for it."""

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
            self._lines.append(trace.encode(TraceGap(self._missed)))
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
    """All who look. ``tap`` is for the channels on ``handoff.sock``, ``traced`` for the app behind ``control.sock``."""

    def __init__(self, worker_of: Callable[[int], str]) -> None:
        """``worker_of``: the name of the worker with that pid, or empty."""
        self._worker_of = worker_of
        self._tracers: set[Tracer] = set()
        self.tap = Tap()

    @property
    def looked_at(self) -> bool:
        return bool(self._tracers)

    def join(self) -> Tracer:
        """Somebody begins to look, and is to ``leave``.

        Raises:
            Refused: enough do.
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
            kind, fields = trace.handoff_message(direction, packet)
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
            # Whoever looks must not break what he looks at: the packet is taken, and its descriptors with it.
            logger.exception("a message on handoff.sock cannot be traced")

    def traced(self, app: ASGIApp) -> ASGIApp:
        """The same app; each request to it, and each answer, is shown to whoever looks."""

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
        line = trace.encode(TracedMessage(time=time.time(), pid=who.pid, uid=who.uid, worker=worker, **said))
        for tracer in self._tracers:
            tracer.tell(line)


class TraceResponse(StreamingResponse):
    """The stream to one tracer, until it hangs up."""

    media_type = NDJSON

    def __init__(self, hub: Trace) -> None:
        """Join ``hub``; whoever makes this is to call it.

        Raises:
            Refused: enough look already.
        """
        self._hub = hub
        self._tracer = hub.join()
        super().__init__(self._tracer.lines())

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
