"""Everything that we know of uvicorn's inside.

``tests/asgi/test_borrowed.py`` holds each of these facts to it, on the oldest and the newest version that we support:

1. ``uvicorn.main.main.params``: the command line, for our own.
2. ``Config(...)``: ``load()``, ``loaded_app``, ``ssl``, ``lifespan_class``, ``http_protocol_class``,
   ``get_loop_factory()``.
3. ``ServerState``: ``connections`` and ``tasks`` are sets that protocols fill and empty; ``default_headers`` is read
   when an answer begins, by reference, so that one list, changed in place, reaches requests that are under way too.
4. The protocols' constructor, and of HttpToolsProtocol and H11Protocol ``transport``, ``cycle`` (``scope``,
   ``response_complete``), ``scope`` and ``conn``; of WebSocket protocols ``shutdown()``, which sends
   1012, and ``handshake_complete`` (in the oldest of them ``handshake_completed_event``).
5. ``ProxyHeadersMiddleware.trusted_hosts``.
6. ``FileFilter`` and the ``reload_*`` attributes of Config, for hot reload.
"""

from __future__ import annotations

import asyncio
import copy
import sys
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import ServerState

from supervisor.asgi.lingering import Entry
from supervisor.core.drain import ConnectionClass

_CLOSE = (b"connection", b"close")
_STREAMS = "stillup.streams"
"""In the scope of a request whose answer is a stream of events."""


class Watched(set[Any]):
    """A set that says when something leaves it."""

    def __init__(self, left: Callable[[], None]) -> None:
        super().__init__()
        self._left = left

    def discard(self, element: Any) -> None:
        super().discard(element)
        self._left()

    def remove(self, element: Any) -> None:
        super().remove(element)
        self._left()


class Site:
    """An ASGI app with what uvicorn's protocols need to serve it. Call ``load`` before anything else."""

    def __init__(self, config: Config, *, changed: Callable[[], None] = lambda: None) -> None:
        """Serve what ``config`` says; ``changed`` is called whenever a connection or a request's task has ended."""
        self.config = config
        self.state = ServerState()
        self.state.connections = Watched(changed)
        self.state.tasks = Watched(changed)
        self._dated: int | None = None

    def load(self) -> None:
        """Import the app.

        Raises:
            SystemExit: uvicorn logged why it cannot be loaded.
            Exception: whatever the app's own code raised.
        """
        self.config.load()
        app = self.config.loaded_app
        self._by_proxy = _trusting_its_peer(self.config, app)
        self.config.loaded_app = _noting_streams(app)
        self.lifespan = self.config.lifespan_class(self.config)
        self.refresh_headers()

    def protocol(self, app_state: dict[str, Any], *, unix: bool = False) -> Entry:
        """A protocol for one new connection; with ``unix`` the peer is the local proxy, trusted with X-Forwarded-*."""
        config = self._by_proxy if unix else self.config
        made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self.state, app_state=app_state
        )
        return Entry(made)

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
        if _CLOSE not in self.state.default_headers:
            self.state.default_headers.append(_CLOSE)


def make_config(app: Any, options: Mapping[str, Any]) -> Config:
    """Uvicorn's configuration of one app; ``options`` by the names of Config's own arguments."""
    return Config(app, **options)


def end(protocol: Any, kind: ConnectionClass) -> None:
    """Close a connection in the way of its class; what was written still arrives."""
    if kind is ConnectionClass.WEBSOCKET:
        protocol.shutdown()  # close frame 1012; the transport lingers for the peer's
    elif (transport := _transport(protocol)) is not None:
        transport.close()


def abort(protocol: Any) -> None:
    """Close a connection now."""
    if (transport := _transport(protocol)) is not None:
        transport.abort()


def _transport(protocol: Any) -> asyncio.Transport | None:
    """A protocol's transport; a protocol that we don't know may keep it elsewhere."""
    transport: asyncio.Transport | None = getattr(protocol, "transport", None)
    return transport


def never_asked(protocol: Any) -> bool:
    """Whether no whole request head has come on this connection yet."""
    return protocol.cycle is None


def classify(protocol: Any) -> ConnectionClass | None:
    """What a connection is doing; None when it is not made yet, or closing already."""
    transport = _transport(protocol)
    if hasattr(protocol, "transport") and (transport is None or transport.is_closing()):
        return None
    if _is(protocol, "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol"):
        return _between(protocol, half_read=_httptools_half_read(protocol), body_arrives=False)
    if _is(protocol, "uvicorn.protocols.http.h11_impl:H11Protocol"):
        buffered = bool(protocol.conn.trailing_data[0])
        body_arrives = protocol.cycle is not None and protocol.conn.their_state is h11.SEND_BODY
        return _between(protocol, half_read=buffered, body_arrives=body_arrives)
    if _is(protocol, *_WEBSOCKETS):
        return ConnectionClass.WEBSOCKET if _is_open(protocol) else ConnectionClass.UPGRADING
    return ConnectionClass.OTHER


def _between(protocol: Any, *, half_read: bool, body_arrives: bool) -> ConnectionClass:
    cycle = protocol.cycle
    if cycle is not None and not cycle.response_complete:
        return ConnectionClass.STREAM if _STREAMS in cycle.scope else ConnectionClass.IN_PROGRESS
    if body_arrives:
        return ConnectionClass.ANSWERED
    if half_read:
        return ConnectionClass.HALF_READ
    return ConnectionClass.UNREAD if cycle is None else ConnectionClass.IDLE


def _httptools_half_read(protocol: Any) -> bool:
    """The parser makes a new scope at a request's first byte, and a cycle of it when the head is complete."""
    begun = protocol.cycle.scope if protocol.cycle is not None else None
    return protocol.scope is not begun


_WEBSOCKETS = (
    "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
    "uvicorn.protocols.websockets.websockets_impl:WebSocketProtocol",
    "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
)


def _is_open(websocket: Any) -> bool:
    """Whether the app has accepted it."""
    if hasattr(websocket, "handshake_complete"):
        return bool(websocket.handshake_complete)
    return bool(websocket.handshake_completed_event.is_set())


def _is(protocol: Any, *names: str) -> bool:
    """Whether it is of one of these classes; a module that nobody has imported has no instances."""
    for name in names:
        module, _, attribute = name.partition(":")
        known = sys.modules.get(module)
        if known is not None and isinstance(protocol, getattr(known, attribute)):
            return True
    return False


class _PeerTrusted:
    """Trusted proxies, where the peer itself, who has no address, is one of them."""

    def __init__(self, hosts: Any) -> None:
        self._hosts = hosts

    def __contains__(self, host: str | None) -> bool:
        return host is None or host in self._hosts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hosts, name)


def _noting_streams(app: Any) -> Any:
    """The app, with a note in the scope of each request that it answers with ``text/event-stream``."""

    async def noting(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return await app(scope, receive, send)

        def noted(message: Any) -> Any:
            if message["type"] == "http.response.start":
                for name, value in message.get("headers", ()):
                    if name.lower() == b"content-type" and value.startswith(b"text/event-stream"):
                        scope[_STREAMS] = True
            return send(message)

        return await app(scope, receive, noted)

    return noting


def _trusting_its_peer(config: Config, app: Any) -> Config:
    config = copy.copy(config)
    if isinstance(app, ProxyHeadersMiddleware):
        app = copy.copy(app)
        app.trusted_hosts = _PeerTrusted(app.trusted_hosts)
    config.loaded_app = _noting_streams(app)
    return config


def watch_filter(options: Mapping[str, Any]) -> tuple[list[Path], Callable[[Path], bool]]:
    """The directories to watch for hot reload, and which of the files in them count, as uvicorn has it."""
    from uvicorn.supervisors.watchfilesreload import FileFilter  # noqa: PLC0415 - needs watchfiles

    config = Config("none:none", reload=True, log_config=None, **options)
    return list(config.reload_dirs), FileFilter(config)
