"""Everything that we know of uvicorn's inside.

``tests/asgi/test_borrowed.py`` holds each of these facts to it, on the oldest and the newest version that we support:

1. ``uvicorn.main.main.params``: the command line, for our own.
2. ``Config(...)``: ``load()``, ``loaded_app``, ``ssl``, ``lifespan_class``, ``http_protocol_class``,
   ``get_loop_factory()``.
3. ``ServerState``: ``connections`` and ``tasks`` are sets that protocols fill and empty; ``default_headers`` is read
   when an answer begins, by reference, so that one list, changed in place, reaches requests that are under way too.
4. The protocols' constructor, and of HttpToolsProtocol and H11Protocol ``transport``, ``cycle`` (``scope``,
   ``response_complete``), ``scope`` (new with each request's first byte or head), ``conn``, ``server_state``,
   ``config`` and ``limit_concurrency``; that they call their own ``on_response_complete()`` and, of httptools,
   ``on_message_complete()``, of h11 ``send_400_response()`` and the cycle's ``disconnected`` and ``message_event``;
   ``logger``, by which they complain; the keep-alive timer, ``timeout_keep_alive_task``, which rings
   ``timeout_keep_alive_handler()`` and is cancelled by the next data. Of WebSocket protocols ``shutdown()``, which
   sends 1012, and ``handshake_complete`` (in the oldest of them ``handshake_completed_event``).
   ``RequestResponseCycle``, which their modules look up by that name for each request: ``transport``, ``scope``,
   ``response_started``, ``response_complete``, ``run_asgi(app)``, which gives the app ``receive`` and ``send`` of it
   and uses the latter for errors and refusals of uvicorn's own, too. A head is one ``write()``, the body's is the next.
   ``app``, read from the configuration when a protocol is made, and by WebSocket protocols of their own.
   ``send_400_response(msg)``, which answers what is no request.
5. ``ProxyHeadersMiddleware.trusted_hosts``.
6. ``FileFilter`` and the ``reload_*`` attributes of Config, for hot reload.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import sys
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, cast

import h11
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import ServerState

from supervisor.asgi.answers import (
    answered_at_once,
    counting_cycle,
    counting_handshakes,
    cut_off,
    is_endless,
)
from supervisor.asgi.lingering import LingeringTransport, Turn
from supervisor.asgi.watched import Watched
from supervisor.core.crossing import MOST_READ, Standing, class_of
from supervisor.core.door import Doing
from supervisor.core.drain import ConnectionClass
from supervisor.host.sources import Arrival
from supervisor.wire.adoption import ConnectionInfo
from supervisor.wire.figures import CELLS, Cells

_CLOSE = (b"connection", b"close")


class Site:
    """An ASGI app with what uvicorn's protocols need to serve it. Call ``load`` before anything else."""

    def __init__(self, config: Config, cells: Cells | None = None) -> None:
        """Serve what ``config`` says; what happens is counted in ``cells`` (``wire.figures``)."""
        self.config = config
        self.cells = cells if cells is not None else [0] * CELLS
        self.state = ServerState()
        self.turn = Turn()
        self.state.connections = self.connections = Watched()
        self.on_arrival: Callable[[Any], None] | None = None
        """Called with each connection that is adopted; a drain wants to know of those, too."""
        self.most_read: int | None = None
        """Bytes that are read at a time, on asyncio's own loop: a parser goes through them in one go, and nobody else
        is served meanwhile. None: as many as the loop likes."""
        self.malformed: Callable[[str], tuple[list[tuple[bytes, bytes]], bytes]] | None = None
        """Makes the headers and the body of the answer to what is no HTTP; None: uvicorn's. Of h11's class only."""
        self.logger: logging.Logger | None = None
        """What connections complain to; None: uvicorn's."""
        self._dated: int | None = None

    def load(self) -> None:
        """Import the app.

        Raises:
            SystemExit: uvicorn logged why it cannot be loaded.
            Exception: whatever the app's own code raised.
        """
        self.config.load()
        app = self.config.loaded_app
        self._by_proxy = self._serving(copy.copy(self.config), _trusting_its_peer(app))
        self._directly = self._serving(self.config, app)
        self.lifespan = self.config.lifespan_class(self.config)
        self._class: Any = ours(cast("Any", self.config.http_protocol_class))
        self.refresh_headers()

    def _serving(self, config: Config, app: Any) -> tuple[Config, Any]:
        """A configuration of the app for WebSockets, whose handshakes it counts; and the app for what comes before."""
        config.loaded_app = counting_handshakes(app, self.cells)
        return config, app

    @property
    def can_move(self) -> bool:
        """Whether connections of this site may move to another worker: plaintext HTTP/1.1, of a class that we know."""
        return issubclass(self._class, Followed) and self.config.ssl is None

    def has_room_for(self, connections: int) -> bool:
        """Whether so many more connections would leave all of them below ``limit_concurrency``."""
        limit = self.config.limit_concurrency
        return limit is None or len(self.state.connections) + connections < limit

    def protocol(self, app_state: dict[str, Any], arrival: Arrival) -> asyncio.Protocol:
        """A protocol for a connection that has come; the peer on a Unix socket is trusted with X-Forwarded-*."""
        # The peer there is the local proxy.
        config, app = self._by_proxy if arrival.unix else self._directly
        made: asyncio.Protocol = self._class(config=config, server_state=self.state, app_state=app_state)
        made.app = app  # type: ignore[attr-defined]
        made.arrival = arrival  # type: ignore[attr-defined]
        made.site = self  # type: ignore[attr-defined]
        if self.logger is not None:
            made.logger = self.logger  # type: ignore[attr-defined]
        return made

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


def requests_jitter(config: Config) -> int:
    """What may come on top of ``limit_max_requests``; the oldest versions have no such option."""
    return int(getattr(config, "limit_max_requests_jitter", 0))


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


def heir(protocol: Any) -> Any:
    """The protocol that a connection was handed to, as to one for WebSockets; else itself, or None without any."""
    transport = _transport(protocol)
    return transport.get_protocol() if transport is not None else None


def doing(protocol: Any) -> Doing:
    """What a connection of h11's class is doing, as the door has it; BUSY while it is being made."""
    transport, cycle = _transport(protocol), protocol.cycle
    if transport is None:
        return Doing.BUSY
    if transport.get_write_buffer_size():
        return Doing.UNREAD
    if transport.is_closing():
        return Doing.ENDING
    if cycle is None:
        return Doing.SILENT
    if not protocol.all_here():
        return Doing.ASKING
    if not cycle.response_complete:
        return Doing.BUSY
    return Doing.ASKING if protocol.conn.trailing_data[0] else Doing.IDLE


def unsent(protocol: Any) -> int:
    """Bytes that were written and have not left this process."""
    transport = _transport(protocol)
    return transport.get_write_buffer_size() if transport is not None else 0


# The crossing


class _Lingering:
    """Mixed into a class of uvicorn's that we don't know: its connections linger when closed, and never move."""

    site: Site
    arrival: Arrival

    def connection_made(self: Any, transport: Any) -> None:
        lingering = LingeringTransport(transport, self.arrival.socket, self.site.turn, self.site.cells)
        super().connection_made(lingering)  # type: ignore[misc]
        info = self.arrival.info  # of another class, at the worker before
        if info is not None and info.read:
            self.data_received(info.read)


class Followed:
    """Mixed into those classes whose connections may move; they linger, too.

    What stands between here and uvicorn is paid for by every request, so it is as little as can be; what a drain alone
    needs is put into its place by ``follow``.
    """

    site: Site
    arrival: Arrival
    requests = 0
    """That came on this connection, here and at earlier workers."""

    def connection_made(self: Any, transport: Any) -> None:
        lingering = LingeringTransport(transport, self.arrival.socket, self.site.turn, self.site.cells)
        super().connection_made(lingering)  # type: ignore[misc]
        if self.site.most_read is not None:
            transport.max_size = self.site.most_read
        if self.arrival.info is not None:
            _take_up(self, self.arrival.info)

    def connection_lost(self: Any, exc: Exception | None) -> None:
        cut_off(self.site.cells, self.cycle)
        super().connection_lost(exc)  # type: ignore[misc]
        # uvicorn's own does that without an error alone: all that was here would stay until its time is over.
        self._unset_keepalive_if_required()
        # Each has the other: no connection that was answered would leave without the garbage collector.
        self.cycle = None

    def send_400_response(self: Any, msg: str) -> None:
        answered_at_once(self.site.cells, 4)
        super().send_400_response(msg)  # type: ignore[misc]

    def said_last(self: Any) -> bool:
        """Whether the client has said that its newest request is its last, and all of that request is here."""
        if self.cycle is None or not self.all_here():
            return False
        scope = self.cycle.scope
        if scope["http_version"] == "1.0":
            return True
        for name, value in scope["headers"]:  # noqa: SIM110 - any() costs twice as much, and each short connection pays
            if name == b"connection" and value.lower() == b"close":
                return True
        return False


@cache
def ours(protocol: Any) -> Any:
    """The class that serves connections here, made of one of uvicorn's."""
    if _is_class(protocol, *_HTTPTOOLS, *_H11):
        _count_cycles(protocol)
    if _is_class(protocol, *_HTTPTOOLS):
        return _FollowedHttpTools.of(protocol)
    if _is_class(protocol, *_H11):
        return type("FollowedH11", (_FollowedH11, protocol), {})
    return type(f"Lingering{protocol.__name__}", (_Lingering, protocol), {})


def _count_cycles(protocol: Any) -> None:
    """Have what one of uvicorn's classes makes of each request count; it finds the class for that in its module."""
    for base in protocol.__mro__:
        if f"{base.__module__}:{base.__name__}" in (*_HTTPTOOLS, *_H11):
            module: Any = sys.modules[base.__module__]
            if not hasattr(module, "stillup_counts"):
                module.stillup_counts = True
                module.RequestResponseCycle = counting_cycle(module.RequestResponseCycle)


class _FollowedHttpTools(Followed):
    """Keeps what was read since the last boundary between two requests, as its parser does not say what it consumed."""

    _ended: Any = None
    """The scope of the newest message that has come to its end."""
    _head = b""
    """All bytes since that end, while they are the beginning of a head; empty where the end was not a read's end too,
    for then it is not known which of the read's bytes came after it."""

    @classmethod
    def of(cls, protocol: Any) -> Any:
        """The class that is this one and uvicorn's; every request goes through two of its methods."""
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

        methods = {"data_received": data_received, "on_message_complete": on_message_complete}
        return type("FollowedHttpTools", (cls, protocol), methods)

    def all_here(self: Any) -> bool:
        """Whether no part of a request is still to come."""
        return self.scope is self._ended

    def standing(self: Any) -> Standing:
        cycle, scope = self.cycle, self.scope
        answering = cycle is not None and not cycle.response_complete
        in_head = scope is not self._ended and (cycle is None or cycle.scope is not scope)
        return Standing(
            asked=self.requests > 0 or cycle is not None,
            answering=answering,
            endless=answering and is_endless(cycle),
            arriving=not answering and scope is not self._ended and not in_head,
            head=(self._head or None) if in_head else b"",
            unsent=self.transport.get_write_buffer_size(),
        )


class _FollowedH11(Followed):
    def all_here(self: Any) -> bool:
        """Whether no part of a request is still to come."""
        return self.conn.their_state is not h11.SEND_BODY

    def on_response_complete(self: Any) -> None:
        self.requests += 1
        super().on_response_complete()  # type: ignore[misc]

    def send_400_response(self: Any, msg: str) -> None:
        """Answer what is not HTTP, and only that: a body may turn out to be garbage while its request is answered.

        Uvicorn's own raises where that answer has begun, and where it has not, the app's raises afterwards.
        """
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
        elif self.site.malformed is None:
            super().send_400_response(msg)
        else:
            headers, body = self.site.malformed(msg)
            answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()

    def standing(self: Any) -> Standing:
        cycle, conn = self.cycle, self.conn
        answering = cycle is not None and not cycle.response_complete
        between = conn.our_state is h11.IDLE and conn.their_state is h11.IDLE
        return Standing(
            asked=self.requests > 0 or cycle is not None,
            answering=answering,
            endless=answering and is_endless(cycle),
            arriving=not answering and conn.their_state is h11.SEND_BODY,
            head=bytes(conn.trailing_data[0]) if between else None,
            unsent=self.transport.get_write_buffer_size(),
        )


def follow(protocol: Any, look: Callable[[Any], None]) -> None:
    """From now on call ``look`` with the connection after whatever may have changed what it is doing."""
    if not issubclass(type(protocol), Followed) or "resume_writing" in vars(protocol):
        return
    for name in _SAYING:
        setattr(protocol, name, _then(getattr(protocol, name), partial(look, protocol)))
    if protocol.cycle is not None:
        protocol.cycle.on_response = protocol.on_response_complete
    for cycle, _ in getattr(protocol, "pipeline", ()):
        cycle.on_response = protocol.on_response_complete
    protocol.transport.set_protocol(protocol)  # uvloop looks a protocol's methods up here, once


_SAYING: Final = ("data_received", "on_response_complete", "resume_writing")
"""The methods of a protocol that may change what it is doing."""


def unfollow(protocol: Any) -> None:
    """Have a connection that has left hold nobody any more, itself neither."""
    if isinstance(protocol, Followed):
        for name in _SAYING:
            vars(protocol).pop(name, None)


def _then(method: Callable[..., None], after: Callable[[], None]) -> Callable[..., None]:
    def both(*args: Any) -> None:
        method(*args)
        after()

    return both


def standing(protocol: Any) -> Standing | None:
    """What a connection that may move some time is doing; None of any other, and of one that ends or has not begun."""
    if not isinstance(protocol, Followed) or _ends(protocol):
        return None
    if protocol not in protocol.site.connections:  # it has become a WebSocket, on the same transport
        return None
    found: Standing = protocol.standing()  # type: ignore[attr-defined]
    return found


def hold(protocol: Any) -> bool:
    """Read nothing more from a connection: what its client sends waits in the kernel. Whether it was read from."""
    if not protocol.transport.is_reading():
        return False
    protocol.transport.pause_reading()
    return True


def release(protocol: Any) -> None:
    """Read again from a connection that was held."""
    if not _ends(protocol):
        protocol.transport.resume_reading()


def descriptor(protocol: Any) -> int:
    """A connection's descriptor, which its transport owns; -1 where that is closed, or not known."""
    transport = _transport(protocol)
    sock = transport.get_extra_info("socket") if transport is not None else None
    return sock.fileno() if sock is not None else -1


def describe(protocol: Any, head: bytes, now: float) -> ConnectionInfo:
    """What the worker that adopts a connection has to know of it; ``head`` is what was read of its next request."""
    timer = protocol.timeout_keep_alive_task
    since = timer.when() - protocol.timeout_keep_alive if timer is not None else None
    return ConnectionInfo(protocol.arrival.listener, now, protocol.requests, since, head)


def let_go(protocol: Any) -> None:
    """Close this process's copy of a connection that somebody else has too, at once and without a word to its client.

    Nothing more is read here: what comes from now on is for the other copy.
    """
    transport = protocol.transport
    if transport.is_reading():
        transport.pause_reading()
    transport.abort()  # close(2) without shutdown(2); nothing that was written is left, so nothing is cut


def hear_when_sent(protocol: Any) -> None:
    """Have ``resume_writing`` called, and so ``look``, once all that was written has left."""
    protocol.transport.set_write_buffer_limits(high=0)


def _take_up(protocol: Any, info: ConnectionInfo) -> None:
    """Go on with a connection where another worker left it."""
    protocol.requests = info.requests
    if protocol.limit_concurrency is not None:
        _exempt(protocol)
    if protocol.site.on_arrival is not None:
        protocol.site.on_arrival(protocol)
    if info.read:
        protocol.data_received(info.read)
    elif info.idle_since is not None:
        loop = asyncio.get_running_loop()
        idle = time.monotonic() - info.idle_since
        left = max(protocol.timeout_keep_alive - idle, LEAST_KEEP_ALIVE)
        protocol.timeout_keep_alive_task = loop.call_later(left, protocol.timeout_keep_alive_handler)


def _exempt(protocol: Any) -> None:
    """Have the next request answered whatever ``limit_concurrency`` is: nobody is turned away for having moved."""
    complete = protocol.on_response_complete

    def completed() -> None:
        protocol.limit_concurrency = protocol.config.limit_concurrency
        complete()

    protocol.limit_concurrency = None
    protocol.on_response_complete = completed


LEAST_KEEP_ALIVE: Final = 0.2
"""Seconds that a connection which was moved is kept at least: its next request may have come on the way."""


def _ends(protocol: Any) -> bool:
    """Whether a connection is not made yet, or closing already."""
    transport = _transport(protocol)
    return hasattr(protocol, "transport") and (transport is None or transport.is_closing())


def classify(protocol: Any) -> ConnectionClass | None:
    """What a connection is doing; None when it is not made yet, or closing already."""
    if _ends(protocol):
        return None
    if (found := standing(protocol)) is not None:
        return class_of(found)
    if _is_class(type(protocol), *_WEBSOCKETS):
        return ConnectionClass.WEBSOCKET if _is_open(protocol) else ConnectionClass.UPGRADING
    return ConnectionClass.OTHER


_HTTPTOOLS = ("uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",)
_H11 = ("uvicorn.protocols.http.h11_impl:H11Protocol",)
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


def _is_class(protocol: type, *names: str) -> bool:
    """Whether it is one of these classes, or made of one; a module that nobody has imported has no classes."""
    for name in names:
        module, _, attribute = name.partition(":")
        known = sys.modules.get(module)
        if known is not None and issubclass(protocol, getattr(known, attribute)):
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


def _trusting_its_peer(app: Any) -> Any:
    if isinstance(app, ProxyHeadersMiddleware):
        app = copy.copy(app)
        app.trusted_hosts = _PeerTrusted(app.trusted_hosts)
    return app


def watch_filter(options: Mapping[str, Any]) -> tuple[list[Path], Callable[[Path], bool]]:
    """The directories to watch for hot reload, and which of the files in them count, as uvicorn has it."""
    from uvicorn.supervisors.watchfilesreload import FileFilter  # noqa: PLC0415 - needs watchfiles

    config = Config("none:none", reload=True, log_config=None, **options)
    return list(config.reload_dirs), FileFilter(config)
