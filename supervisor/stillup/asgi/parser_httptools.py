"""Connections that httptools reads, in uvicorn's HttpToolsProtocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stillup.asgi.movable_connection import OWN, MovableConnection
from stillup.asgi.request_counters import is_event_source, is_streaming
from stillup.asgi.request_tasks import owner
from stillup.core.crossing import MOST_READ, Standing
from stillup.wire.session_format import OpenAnswer

if TYPE_CHECKING:
    from stillup.asgi.site import Site
    from stillup.host.sources import Arrival

_OF_BODIES: Final = frozenset({b"content-length", b"transfer-encoding"})


class HttpToolsConnection(MovableConnection):
    """Keeps what was read since the last boundary between two requests, as its parser does not say what it consumed."""

    pipeline: Any
    """Of uvicorn's: the requests that wait, with their apps."""
    scope: Any
    """Of uvicorn's: a new one with each request's first byte."""
    _ended: Any
    """The scope of the newest message that has come to its end."""
    _head: bytes
    """All bytes since that end, while they are the beginning of a head; empty where the end was not a read's end too,
    for then it is not known which of the read's bytes came after it."""

    def begin(self, site: Site, arrival: Arrival) -> None:
        super().begin(site, arrival)
        self._ended = None
        self._head = b""

    def _unsupported_upgrade_warning(self) -> None:
        super()._unsupported_upgrade_warning()  # type: ignore[misc]
        self._refuse_a_body()

    def _should_upgrade_to_ws(self, *upgrade: Any) -> bool:
        """Older versions of uvicorn tell this one alone what is asked for, and go on where it is not taken up."""
        taken: bool = super()._should_upgrade_to_ws(*upgrade)  # type: ignore[misc]
        if upgrade and not taken:
            self._refuse_a_body()
        return taken

    def _refuse_a_body(self) -> None:
        """Refuse an upgrade that is not taken up and has a body: the parser takes that for the next request.

        As h2c to a server of HTTP/1.1. The app would be given an empty body; its task has not begun.
        """
        if not any(name in _OF_BODIES and value != b"0" for name, value in self.scope["headers"]):
            return
        refused, self.cycle = self.cycle, None
        if any(cycle is refused for cycle, _ in self.pipeline):
            self.transport.close()  # the one before is being answered
            return
        for task in self.site.state.tasks:
            if owner(task) is refused:
                task.cancel()
        self.send_400_response("An upgrade with a body is not served.")

    def all_here(self) -> bool:
        return self.scope is self._ended

    def behind(self) -> bytes | None:
        if self.pipeline:
            return None
        return b"" if self.scope is self._ended else self._head or None

    def left_to_send(self) -> int:
        return int(self.cycle.expected_content_length)

    def is_kept(self) -> bool:
        return bool(self.cycle.keep_alive)

    def go_on(self, cycle: Any, answer: OpenAnswer) -> None:
        cycle.chunked_encoding = answer.length is None
        cycle.expected_content_length = answer.left
        cycle.keep_alive = answer.keep_alive

    def parsed(self) -> Standing:
        cycle, scope = self.cycle, self.scope
        answering = cycle is not None and not cycle.response_complete
        in_head = scope is not self._ended and (cycle is None or cycle.scope is not scope)
        return Standing(
            asked=self.requests > 0 or cycle is not None,
            answering=answering,
            streaming=answering and is_streaming(cycle),
            event_source=answering and is_event_source(cycle),
            arriving=scope is not self._ended and not in_head,
            head=(self._head or None) if in_head else b"",
            unsent=self.transport.get_write_buffer_size(),
        )


def connection_class(protocol: Any) -> Any:
    """The class that serves connections, made of uvicorn's; every request goes through two of its methods."""
    # Not by super(), which costs more than all else here.
    receive, complete = protocol.data_received, protocol.on_message_complete

    def data_received(self: Any, data: bytes) -> None:
        if self.scope is self._ended:
            self._head = data
        elif self._head:
            in_head = self.cycle is None or self.cycle.scope is not self.scope
            self._head = self._head + data if in_head and len(self._head) <= MOST_READ else b""
        receive(self, data)

    def on_message_complete(self: Any) -> None:
        self._ended = self.scope
        self._head = b""
        self.requests += 1
        complete(self)

    members = {
        "__slots__": (*OWN, "_ended", "_head"),
        "data_received": data_received,
        "on_message_complete": on_message_complete,
    }
    return type("MovableHttpTools", (HttpToolsConnection, protocol), members)
