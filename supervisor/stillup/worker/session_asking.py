"""In which order a draining worker asks apps to hand their WebSockets over: some at a time.

From when it is told until another worker has it nobody serves a connection. So no more are asked while as many as the
queue takes soon wait to be sent: a thousand at once would stand still together. Apps that take long for their state are
not waited for, since one that never answers would hold up all others: thousands may be at it at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from stillup.asgi.connection import Connection
from stillup.core.crossing import PACKET_FOR_ONE

AT_ONCE: Final = PACKET_FOR_ONE
"""Connections that are asked in one turn, less those that wait to be sent."""
PAUSE: Final = 0.005
"""Seconds until the next are."""


class SessionAsking:
    """Asks each that is wanted, once."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """``waiting`` says how many connections wait to be sent."""
        self._to_send = waiting
        self._wanted: dict[Connection, None] = {}
        self._asked: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None

    def want(self, connection: Connection) -> None:
        """Ask its app soon, unless it was asked."""
        if connection in self._asked:
            return
        self._wanted[connection] = None
        if self._next is None:
            self._next = self._loop.call_soon(self._ask_some)

    def forget(self, connection: Connection) -> None:
        """It has left, or is not to be asked any more."""
        self._wanted.pop(connection, None)
        self._asked.discard(connection)

    def stop(self) -> None:
        """Ask no more. Idempotent."""
        self._wanted.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _ask_some(self) -> None:
        self._next = None
        for connection in list(self._wanted)[: max(0, AT_ONCE - self._to_send())]:
            del self._wanted[connection]
            self._asked.add(connection)
            connection.ask()
        if self._wanted:
            self._next = self._loop.call_later(PAUSE, self._ask_some)
