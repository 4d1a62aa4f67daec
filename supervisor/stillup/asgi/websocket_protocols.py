"""Connections that have become WebSockets, in any of uvicorn's three implementations. They stay where they are.

Uvicorn makes one of these in the middle of an HTTP connection, on the same transport, and hands it what was read. What
an implementation knows of its session (state to be handed over, messages that wait) belongs in a subclass here.
"""

from __future__ import annotations

from typing import Any

from stillup.asgi.connection import Connection
from stillup.core.drain import ConnectionClass


class WebSocketConnection(Connection):
    """A WebSocket, from its request on."""

    def shutdown(self) -> None:
        """Send the close code 1012, or refuse the handshake; nothing where it is closing already."""
        # uvicorn's own raises where the handshake was refused, but its transport is one that lingers.
        if not self.is_ending():
            super().shutdown()  # type: ignore[misc]

    def cuts_short(self: Any) -> bool:
        """Whether uvicorn ends it in the middle of what its client sends: too large a message (1009), or no frame."""
        conn = getattr(self, "conn", None)
        if getattr(conn, "parser_exc", None) is not None:  # of websockets
            return True
        failing = getattr(self, "close_sent", False) and getattr(self, "close_timer", self) is None
        return failing and getattr(getattr(conn, "state", None), "name", "") == "LOCAL_CLOSING"  # of wsproto

    def is_open(self: Any) -> bool:
        """Whether the app has accepted it."""
        if hasattr(self, "handshake_complete"):
            return bool(self.handshake_complete)
        return bool(self.handshake_completed_event.is_set())

    def kind(self) -> ConnectionClass | None:
        if self.is_ending():
            return None
        return ConnectionClass.WEBSOCKET if self.is_open() else ConnectionClass.UPGRADING

    def end(self) -> None:
        if self.is_open():
            self.shutdown()  # its transport lingers for the peer's close frame
        else:
            super().end()


def websocket_class(protocol: Any) -> Any:
    """The class that serves WebSockets, made of one of uvicorn's."""
    return type(f"Drained{protocol.__name__}", (WebSocketConnection, protocol), {})
