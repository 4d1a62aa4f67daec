"""What HAProxy's ``agent-check`` asks: a line to each connection, of how many new clients to send (``--agent-bind``).

Who connects is answered and hung up on at once, so that nobody can hold anything here; nothing is read.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Final

from stillup.asgi.acceptor import Acceptor
from stillup.host.sources import Arrival, SpareBacklog

BACKLOG: Final = 128
SPARE: Final = 1
"""Connections that can be taken when no descriptor is free: a host is not to seem down then."""
_MOST_READ: Final = 4096
"""Bytes that are dropped: close(2) of a socket with unread bytes makes a reset of it, which may destroy the answer."""


class AgentServer:
    """Answers on a listening socket; owns it."""

    def __init__(self, sock: socket.socket, word: Callable[[], str]) -> None:
        """Begin to answer, with what ``word`` says."""
        self._word = word
        sock.listen(BACKLOG)
        self._acceptor = Acceptor(SpareBacklog("agent", sock, SPARE), self._answer)
        self._acceptor.start()

    def _answer(self, arrival: Arrival) -> None:
        with contextlib.closing(arrival.socket) as sock, contextlib.suppress(OSError):  # it has left already
            sock.setblocking(False)
            sock.send(f"{self._word()}\n".encode())
            sock.shutdown(socket.SHUT_WR)
            sock.recv(_MOST_READ)

    async def close(self) -> None:
        """Answer nobody any more."""
        await self._acceptor.stop()
