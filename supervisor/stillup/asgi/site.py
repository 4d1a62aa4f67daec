"""An ASGI app with what uvicorn's protocols need to serve it: its configuration, its connections and its figures."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from stillup.asgi.connection import Connection
from stillup.asgi.handshake_counter import CountingApp
from stillup.asgi.lingering_close import WriteBatch
from stillup.asgi.movable_connection import MovableConnection
from stillup.asgi.observed_set import ObservedSet
from stillup.asgi.unserved_session import UnservedSession
from stillup.asgi.uvicorn_adapter import awaits_shutdown, connection_class, websocket_class
from stillup.asgi.uvicorn_config import takes_wsgi, trusting_its_peer
from stillup.core.crossing import ResumeRefusal
from stillup.host.sources import Arrival
from stillup.wire.figure_cells import CELLS, CORDONED, Cells
from stillup.wire.session_format import OpenWebSocket

logger = logging.getLogger("uvicorn.error")

_CLOSE = (b"connection", b"close")


class Site:
    """An ASGI app with what uvicorn's protocols need to serve it. Call ``load`` before anything else."""

    def __init__(self, config: Config, cells: Cells | None = None) -> None:
        """Serve what ``config`` says; what happens is counted in ``cells`` (``wire.figure_cells``)."""
        self.config = config
        self.cells = cells if cells is not None else [0] * CELLS
        self.state = ServerState()
        self.write_batch = WriteBatch()
        self.connections: ObservedSet[Connection] = ObservedSet()
        """Those that are open; uvicorn's classes fill and empty it."""
        self.state.connections = cast("Any", self.connections)
        self.on_arrival: Callable[[Connection], None] | None = None
        """Called with each connection that is adopted; a drain wants to know of those, too."""
        self.on_change: Callable[[Connection], None] | None = None
        """Called with each connection that is followed, when it may do something else; by the drain that there is."""
        self.most_read: int | None = None
        """Bytes that are read at a time, on asyncio's own loop: a parser goes through them in one go, and nobody else
        is served meanwhile. None: as many as the loop likes."""
        self.malformed: Callable[[str], tuple[list[tuple[bytes, bytes]], bytes]] | None = None
        """Makes the headers and the body of the answer to what is no HTTP; None: uvicorn's. Of h11's class only."""
        self.logger: logging.Logger | None = None
        """What connections complain to; None: uvicorn's."""
        self.is_proxy: Callable[[Arrival], bool] = lambda _: False
        """Whether the peer on a Unix socket, who has no address, is a proxy that is to be believed."""
        self.is_wsgi = False
        """Whether the app, once it is loaded, is found to be no ASGI app, but a WSGI app (PEP 3333)."""
        self.on_refusal: Callable[[], None] | None = None
        """Called with each session that was handed over and does not go on."""
        self.refused: Counter[str] = Counter()
        """By reason, sessions that were handed over and did not go on."""
        self.gives_sessions: Callable[[], bool] = lambda: False
        """Whether somebody takes over what an app hands over; of the drain that there is."""
        self.drain_begins = asyncio.Event()
        """Unset from when an app is told of a drain until that looks at connections."""
        self.drain_begins.set()
        self._dated: int | None = None
        self._leaves = False
        """Whether it was announced that every connection closes."""

    def load(self) -> None:
        """Import the app.

        Raises:
            SystemExit: uvicorn logged why it cannot be loaded.
            Exception: whatever the app's own code raised.
        """
        self.config.load()
        app = self.config.loaded_app
        self.is_wsgi = takes_wsgi(self.config)
        self.config.ws_protocol_class = websocket_class(cast("Any", self.config.ws_protocol_class))
        self._by_proxy = self._serving(copy.copy(self.config), trusting_its_peer(app))
        self._directly = self._serving(self.config, app)
        self.lifespan = self.config.lifespan_class(self.config)
        self._class: Any = connection_class(cast("Any", self.config.http_protocol_class))
        self.refresh_headers()

    def _serving(self, config: Config, app: Any) -> tuple[Config, Any]:
        """A configuration of the app for WebSockets, whose handshakes it counts; and the app for what comes before."""
        config.loaded_app = CountingApp(app, self.cells)
        return config, app

    @property
    def can_move(self) -> bool:
        """Whether connections of this site may move to another worker: plaintext HTTP/1.1, of a class that we know."""
        return issubclass(self._class, MovableConnection) and self.config.ssl is None

    @property
    def has_shutdown(self) -> bool:
        """Whether the app, once started, is told of its shutdown, and takes its time for it."""
        return awaits_shutdown(self.lifespan)

    def has_room_for(self, connections: int) -> bool:
        """Whether so many more connections would leave all of them below ``limit_concurrency``."""
        limit = self.config.limit_concurrency
        return limit is None or len(self.state.connections) + connections < limit

    def protocol(self, app_state: dict[str, Any], arrival: Arrival) -> Connection:
        """The protocol of a connection that has come; whether its peer is believed with X-Forwarded-* is asked once."""
        # Whoever adopts it asks the kernel again: what SO_PEERCRED says stays with the socket.
        config, app = self._by_proxy if arrival.unix and self.is_proxy(arrival) else self._directly
        kind = self._class
        if arrival.session is not None:
            if isinstance(arrival.session, OpenWebSocket):
                goes_on = getattr(config.ws_protocol_class, "takes_sessions", False)
                kind = config.ws_protocol_class if goes_on else UnservedSession
            elif not self.can_move:
                kind = UnservedSession
        made = kind(config=config, server_state=self.state, app_state=app_state)
        if kind is self._class:
            made.app = app
        made.begin(self, arrival)
        if self.logger is not None:
            made.logger = self.logger
        served: Connection = made
        return served

    def changed(self, connection: Connection) -> None:
        """What a connection does may have changed that is followed."""
        if self.on_change is not None:
            self.on_change(connection)

    def refuse(self, why: ResumeRefusal) -> None:
        """Note that a session which was handed over does not go on."""
        self.refused[why] += 1
        logger.warning("a session does not go on, and is ended: %s", why)
        if self.on_refusal is not None:
            self.on_refusal()

    def refresh_headers(self) -> None:
        """Put the current date into the default headers; to be called once a second."""
        headers = self.state.default_headers
        if not headers:
            headers.extend(self.config.encoded_headers)
        if self.config.date_header:
            date = (b"date", formatdate(time.time(), usegmt=True).encode())
            if self._dated is None:
                headers.insert(0, date)
                self._dated = 0
            else:
                headers[self._dated] = date

    def announce_close(self) -> None:
        """From now on every answer that begins says ``Connection: close``, and its connection closes after it."""
        self._leaves = True
        self.cells[CORDONED] = 0
        self._say_close()

    def retract_close(self) -> None:
        """Say so no more, until it is announced anew."""
        self._leaves = False
        self.cordon(on=False)

    @property
    def says_close(self) -> bool:
        """Whether every answer that begins says ``Connection: close`` for good."""
        return self._leaves

    def cordon(self, *, on: bool) -> None:
        """As ``announce_close``, until it is taken back; those answers are counted apart. Nothing once this leaves."""
        if self._leaves:
            return
        self.cells[CORDONED] = int(on)
        if on:
            self._say_close()
        elif _CLOSE in self.state.default_headers:
            self.state.default_headers.remove(_CLOSE)

    def _say_close(self) -> None:
        if _CLOSE not in self.state.default_headers:
            self.state.default_headers.append(_CLOSE)
