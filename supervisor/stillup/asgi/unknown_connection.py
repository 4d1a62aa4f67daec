"""Connections of classes that we don't know: they close like all others, and never move.

Such a class may hand a connection to another protocol, as uvicorn's for HTTP/2 does once it knows what its client
speaks. That one is made one of ours when it is given the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

from stillup.asgi.connection import Connection
from stillup.asgi.lingering_close import LingeringCloseTransport
from stillup.host.sources import Arrival


class UnknownConnection(Connection):
    """Mixed into such a class."""

    arrival: Arrival

    def connection_made(self, transport: Any) -> None:
        site = self.site
        ours = _HandedOnTransport(transport, self.arrival.socket, site.write_batch, site.cells)
        super().connection_made(ours)
        info = self.arrival.info  # of another class, at the worker before
        if info is not None and info.read:
            self.data_received(info.read)


class HandedOnConnection(Connection):
    """Mixed into the class of a protocol that it was handed on to."""

    arrival: Arrival
    _leaves = False
    """Whether it is to close as soon as no request is in progress."""

    # Of uvicorn's class for HTTP/2, of which ``_close_connection`` says so to the client (GOAWAY, RFC 9113, 6.8):
    cycles: Any
    _close_connection: Callable[[], None]

    def follow(self, look: Callable[[Connection], None]) -> None:  # noqa: ARG002 - it says nothing by itself
        """At the beginning of a drain: HTTP/2 has no header by which an answer says that it is the last one.

        Uvicorn's ``shutdown`` would refuse what its client asks for next, for as long as one request is in progress.
        """
        self._leaves = True
        if hasattr(self, "cycles") and not self.cycles:
            self.end()

    def unfollow(self) -> None:
        self._leaves = False

    def on_stream_closed(self) -> None:
        super().on_stream_closed()  # type: ignore[misc]
        if self._leaves and not self.cycles:
            self.end()

    def end(self) -> None:
        if hasattr(self, "cycles") and not self.is_ending():
            self._close_connection()
        else:
            super().end()


class _HandedOnTransport(LingeringCloseTransport):
    """Knows when its protocol gives it to another one."""

    __slots__ = ()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        before = self.get_protocol()
        if isinstance(before, UnknownConnection) and not isinstance(protocol, Connection):
            kind: Any = type(protocol)
            protocol.__class__ = _handed_on(kind)
            protocol.site, protocol.arrival = before.site, before.arrival  # type: ignore[attr-defined]
        super().set_protocol(protocol)


@cache
def _handed_on(protocol: Any) -> Any:
    return type(f"HandedOn{protocol.__name__}", (HandedOnConnection, protocol), {})
