"""A session that comes from another worker to one that cannot go on with it; a WebSocket is told so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stillup.asgi.connection import Connection
from stillup.asgi.lingering_close import LingeringCloseTransport
from stillup.core.crossing import ResumeRefusal
from stillup.host.sources import Arrival
from stillup.wire.session_format import OpenWebSocket

if TYPE_CHECKING:
    from stillup.asgi.site import Site

_CLOSE: Final = b"\x88\x02" + (1012).to_bytes(2)
"""A close frame with the code *service restart* (RFC 6455, 5.5.1)."""


class UnservedSession(Connection):
    """Made like one of uvicorn's, of which nothing else is needed here."""

    site: Site
    arrival: Arrival

    def __init__(self, *, config: Any, server_state: Any, app_state: Any) -> None:  # noqa: ARG002
        self._connections = server_state.connections

    def connection_made(self, transport: Any) -> None:
        site = self.site
        self.transport = LingeringCloseTransport(transport, self.arrival.socket, site.write_batch, site.cells)
        self._connections.add(self)
        site.refuse(ResumeRefusal.NOT_SERVED)
        if isinstance(self.arrival.session, OpenWebSocket):
            self.transport.write(_CLOSE)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why is all the same
        self._connections.discard(self)
