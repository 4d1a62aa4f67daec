"""One notion of where connections come from: a source is read in small batches, each connection gets its protocol.

``loop.create_server`` is not used: it calls listen() again on the shared socket, takes up to ``backlog`` connections in
one turn of the loop (so that one worker hoards), and closing it loses the accepts that are under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final, TypeAlias

from stillup.core.drain import STANDSTILL
from stillup.errors import PeerError
from stillup.host.sources import Arrival, EndOfSource, Source

logger = logging.getLogger("uvicorn.error")  # where users look for word from their server

PAUSE: Final = 0.5
"""Seconds without accepting when the machine has no descriptor or memory left; the clients wait in the backlog."""
COMPLAINTS: Final = 10.0
"""Seconds between two lines about what another worker did wrong."""
BUSY: Final = 0.05
"""Seconds that a full worker leaves a source to the others before it looks again."""
EMPTYING: Final = 2.0
"""Seconds in which a backlog is emptied; under enough load it would never be empty."""
HANDSHAKE: Final = 5.0
"""Seconds that a TLS handshake may take once its listener is closed."""

_UnderWay: TypeAlias = list[tuple[asyncio.Future[Any], Coroutine[Any, Any, Any], socket.socket]]
"""Connections whose transport is being made: what is waited for, what waits, and the connection."""
_USUAL: Final = (OSError, ValueError, asyncio.CancelledError)


class Acceptor:
    """Takes connections from one source and connects each to a protocol. Owns the source."""

    def __init__(
        self,
        source: Source,
        protocol: Callable[[Arrival], asyncio.Protocol | None],
        *,
        tls: ssl.SSLContext | None = None,
        ready: Callable[[], bool] = lambda: True,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve what comes with what ``protocol`` makes of it; None: the connection is its affair from here on.

        While ``ready`` says no, nothing is taken: others that read from the same source may have it. ``ended`` is
        called when the source says that nothing more will ever come; ``at_end`` says so from then on.
        """
        self._source = source
        self._protocol = protocol
        self.tls = tls
        """What connections to come are made with."""
        self._is_ready = ready
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Future[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._stopped = False
        self._silent_until = 0.0
        """Until when nothing is said of what another worker did wrong."""
        self._ended = ended
        self.at_end = False

    @property
    def connecting(self) -> int:
        """How many connections were taken whose protocol does not have them yet."""
        return len(self._connecting)

    def start(self) -> None:
        """Take what comes, from here on; nothing happens where nothing will ever come, or it was stopped."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if not (self._stopped or self.at_end):
            self._loop.add_reader(self._source.fileno(), self._ready)

    def pause(self) -> None:
        """Take nothing until ``start``: what comes is for others that read from the same source."""
        if not (self._stopped or self.at_end):
            self._stop_listening()

    async def stop(self, *, empty: bool = False) -> None:
        """Stop taking, close the source, and wait until every connection that was taken has its protocol.

        With ``empty``, what waits is taken first: for the last copy of a listener, whose close would reset them. A TLS
        handshake is waited for HANDSHAKE seconds at most. Idempotent.
        """
        if not self._stopped:
            self._stopped = True
            self._stop_listening()
            try:
                if empty:
                    await self._empty()
            except OSError as error:
                logger.error("cannot empty the backlog: %s", error)  # noqa: TRY400 - no bug
            # At once: whoever connects between the last accept and the close is reset.
            self._source.close()
            self.at_end = True
        await self.made()

    async def made(self) -> None:
        """Wait until each connection that was taken has its protocol: for a TLS handshake HANDSHAKE seconds at most."""
        if self._connecting:
            _, late = await asyncio.wait(self._connecting, timeout=HANDSHAKE)
            for waiter in late:
                waiter.cancel()

    async def _empty(self) -> None:
        """Take all that waits, for EMPTYING seconds; what the process stands still meanwhile takes nothing from them.

        Raises:
            OSError: as ``Source.take``.
        """
        spent, looked = 0.0, self._loop.time()
        while spent < EMPTYING and self._take():
            # A turn for those just taken, so that taking a long backlog stops nobody else.
            await asyncio.sleep(0)
            before, looked = looked, self._loop.time()
            spent += min(looked - before, STANDSTILL)

    def _stop_listening(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._source.fileno())

    def _ready(self) -> None:
        if not self._is_ready():
            self._pause_for(BUSY)
            return
        try:
            self._take()
        except EndOfSource:
            self._stop_listening()
            self.at_end = True
            self._ended()
        except PeerError as error:
            # Another worker's fault, and it may do so without end.
            if self._loop.time() >= self._silent_until:
                self._silent_until = self._loop.time() + COMPLAINTS
                logger.error("connections lost: %s", error)  # noqa: TRY400 - no bug
        except OSError as error:
            # Whatever it is, it must neither end the service nor make the loop spin.
            logger.error("cannot accept: %s; trying again in %s s", error.strerror, PAUSE)  # noqa: TRY400 - no bug
            self._pause_for(PAUSE)

    def _pause_for(self, seconds: float) -> None:
        self._stop_listening()
        self._pause = self._loop.call_later(seconds, self.start)

    def _take(self) -> bool:
        """Take what one turn may take; False when there was nothing.

        Raises:
            EndOfSource, PeerError, OSError: as the source.
        """
        arrivals = self._source.take()
        self.serve(arrivals)
        return bool(arrivals)

    def serve(self, arrivals: Iterable[Arrival]) -> None:
        """Connect each to its protocol."""
        under_way: _UnderWay = []
        for arrival in arrivals:
            try:
                self._connect(arrival, under_way)
            except Exception as error:  # noqa: BLE001 - whatever it is, those that came with it are served
                _failed(arrival.socket, error)
        if under_way:
            # The turn after the one that makes them: what their clients have sent already is read by then, and whoever
            # waits in stop(), to end what is idle, does not end these.
            self._loop.call_soon(self._loop.call_soon, self._made, under_way)

    def _connect(self, arrival: Arrival, under_way: _UnderWay) -> None:
        connection = arrival.socket
        if (protocol := self._protocol(arrival)) is None:
            return
        making = self._loop.connect_accepted_socket(lambda: protocol, connection, ssl=self.tls)
        waiter: asyncio.Future[Any]
        if self.tls is None:
            # It waits once, for the transport, which the loop makes in its next turn. A task for that would cost a
            # tenth of a short connection, and a callback of each a hundredth.
            waiter = making.send(None)
            under_way.append((waiter, making, connection))
        else:
            waiter = self._loop.create_task(making)
            waiter.add_done_callback(partial(self._shaken, connection))
        self._connecting.add(waiter)

    def _made(self, under_way: _UnderWay) -> None:
        for waiter, making, connection in under_way:
            if not waiter.done():  # a loop of another make may need longer
                waiter.add_done_callback(partial(self._made_late, making, connection))
                continue
            self._connecting.discard(waiter)
            try:
                making.send(None)
            except StopIteration:
                continue
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as above
                _failed(connection, error)

    def _made_late(
        self, making: Coroutine[Any, Any, Any], connection: socket.socket, waiter: asyncio.Future[Any]
    ) -> None:
        self._made([(waiter, making, connection)])

    def _shaken(self, connection: socket.socket, task: asyncio.Future[Any]) -> None:
        self._connecting.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            _failed(connection, error)


def _failed(connection: socket.socket, error: BaseException) -> None:
    """End one connection alone: its client has left, its TLS handshake failed or took too long, or worse."""
    if isinstance(error, _USUAL):
        logger.debug("a connection ended before it began: %s", error)
    else:
        logger.error("a connection cannot be served", exc_info=error)
    with contextlib.suppress(OSError):
        connection.close()
