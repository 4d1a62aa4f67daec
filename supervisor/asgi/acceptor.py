"""An accept loop of our own, in small batches.

``loop.create_server`` is not used: it calls listen() again on the shared socket, takes up to ``backlog`` connections in
one turn of the loop (so that one worker hoards), and closing it loses the accepts that are under way.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("uvicorn.error")  # where users look for word from their server

BATCH: Final = 4
"""Connections taken in one turn of the loop; the rest is for the other workers, or for the next turn."""
GONE: Final = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
)
"""What accept(2) says of a connection that has failed already, to be passed over like EAGAIN."""
PAUSE: Final = 0.5
"""Seconds without accepting when the machine has no descriptor or memory left; the clients wait in the backlog."""
HANDSHAKE: Final = 5.0
"""Seconds that a TLS handshake may take once its listener is closed."""


class Acceptor:
    """Accepts from one listener and connects each connection to a protocol. Owns the socket's copy that it is given."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[socket.socket], asyncio.Protocol | None],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Serve ``sock`` with what ``protocol`` makes of a connection; None turns the connection away."""
        self._sock = sock
        self._protocol = protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._ready)

    async def stop(self, *, empty: bool = False) -> None:
        """Stop accepting, close this copy of the socket, and wait until every accepted connection has its protocol.

        With ``empty``, what waits in the backlog is taken first: for the last copy of a listener, whose close would
        reset them. A TLS handshake is waited for HANDSHAKE seconds at most.
        """
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        try:
            while empty and self._accept():  # noqa: ASYNC110 - the backlog itself says when it is empty
                # A turn for those just accepted, so that taking a long backlog stops nobody else.
                await asyncio.sleep(0)
        except OSError as error:
            logger.error("cannot empty the backlog: %s", error)  # noqa: TRY400 - no bug
        # At once: whoever connects between the last accept and the close is reset.
        self._sock.close()
        if self._connecting:
            _, late = await asyncio.wait(self._connecting, timeout=HANDSHAKE)
            for task in late:
                task.cancel()

    def _ready(self) -> None:
        try:
            self._accept()
        except OSError as error:
            # Whatever it is, it must neither end the service nor make the loop spin.
            logger.error("cannot accept: %s; trying again in %s s", error.strerror, PAUSE)  # noqa: TRY400 - no bug
            self._loop.remove_reader(self._sock)
            self._pause = self._loop.call_later(PAUSE, self.start)

    def _accept(self) -> bool:
        """Take up to BATCH connections; False when there was nothing more to take.

        Raises:
            OSError: nothing can be accepted now, such as for want of a descriptor.
        """
        for _ in range(BATCH):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno in GONE:
                    continue
                raise
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, connection: socket.socket) -> None:
        protocol = self._protocol(connection)
        if protocol is None:
            connection.close()
            return
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._tls)
        except (TimeoutError, OSError) as error:  # the client left, or its TLS handshake failed
            logger.debug("a connection ended before it began: %s", error)
            connection.close()
