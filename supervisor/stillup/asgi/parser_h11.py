"""Connections that h11 reads, in uvicorn's H11Protocol. The control server's are all of these."""

from __future__ import annotations

from typing import Any

import h11

from stillup.asgi.movable_connection import OWN, MovableConnection
from stillup.asgi.request_counters import is_event_source, is_streaming
from stillup.core.caller_limits import Doing
from stillup.core.crossing import Standing
from stillup.wire.session_format import OpenAnswer


class H11Connection(MovableConnection):
    """Its parser keeps what it has not consumed (``trailing_data``), and says where each side stands."""

    conn: h11.Connection
    """Of uvicorn's."""

    def all_here(self) -> bool:
        return self.conn.their_state is not h11.SEND_BODY

    def owes(self) -> bool:
        return not self.all_here() or bool(self.conn.trailing_data[0])

    def behind(self) -> bytes | None:
        return bytes(self.conn.trailing_data[0])

    def left_to_send(self) -> int:
        return int(self.conn._writer._length)  # type: ignore[union-attr]  # noqa: SLF001 - of its ContentLengthWriter

    def is_kept(self) -> bool:
        return self.conn._cstate.keep_alive  # noqa: SLF001

    def go_on(self, cycle: Any, answer: OpenAnswer) -> None:
        headers = [(b"content-length", b"%d" % answer.left)]
        if answer.length is None:
            headers = [(b"transfer-encoding", b"chunked")]
        if not answer.keep_alive:
            headers.append((b"connection", b"close"))
        cycle.conn.send(h11.Response(status_code=answer.status, headers=headers))  # and not written

    def parsed(self) -> Standing:
        cycle, conn = self.cycle, self.conn
        answering = cycle is not None and not cycle.response_complete
        between = conn.our_state is h11.IDLE and conn.their_state is h11.IDLE
        return Standing(
            asked=self.requests > 0 or cycle is not None,
            answering=answering,
            streaming=answering and is_streaming(cycle),
            event_source=answering and is_event_source(cycle),
            arriving=conn.their_state is h11.SEND_BODY,
            head=bytes(conn.trailing_data[0]) if between else None,
            unsent=self.transport.get_write_buffer_size(),
        )

    def on_response_complete(self) -> None:
        self.requests += 1
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and only that: a body may turn out to be garbage while its request is answered.

        Uvicorn's own raises where that answer has begun, and where it has not, the app's raises afterwards.
        """
        if self._remakes:
            return  # its answer has begun
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
        elif self.site.malformed is None:
            super().send_400_response(msg)
        else:
            headers, body = self.site.malformed(msg)
            answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()

    def doing(self) -> Doing:
        """What it is doing, as the limits of callers have it (``core.caller_limits``); BUSY while it is being made."""
        transport, cycle = self.its_transport(), self.cycle
        if transport is None:
            return Doing.BUSY
        if transport.get_write_buffer_size():
            return Doing.UNREAD
        if transport.is_closing():
            return Doing.ENDING
        if cycle is None:
            return Doing.SILENT
        if not self.all_here():
            return Doing.ASKING
        if not cycle.response_complete:
            return Doing.BUSY
        return Doing.ASKING if self.conn.trailing_data[0] else Doing.IDLE


def connection_class(protocol: Any) -> Any:
    """The class that serves connections, made of uvicorn's."""
    return type("MovableH11", (H11Connection, protocol), {"__slots__": OWN})
