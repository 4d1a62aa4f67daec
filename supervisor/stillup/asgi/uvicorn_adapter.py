"""Which of our classes serves what uvicorn's would, and everything that we know of uvicorn's inside.

A parser is a subclass of ``MovableConnection`` in a file of its own, and a line in PARSERS; an implementation of
WebSockets the same, of ``WebSocketConnection``, in WEBSOCKETS. A class that stands in neither is served, and its
connections stay where they are.

``tests/asgi`` holds each of these facts to it, on the oldest and the newest version that we support:

1. ``uvicorn.main.main.params``: the command line, for our own.
2. ``Config(...)``: ``load()``, ``loaded_app``, ``ssl`` (which ``load()`` makes where ``is_ssl``, of ``ssl_certfile``,
   ``ssl_keyfile`` and others with ``create_ssl_context()``), ``workers`` (else read off WEB_CONCURRENCY),
   ``lifespan_class``, ``http_protocol_class``, ``ws_protocol_class``, which HTTP protocols take over when they are
   made; ``get_loop_factory()``, which those before 0.36 lack.
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
   and uses the latter for errors and refusals of uvicorn's own, too, those of the app ``service_unavailable``, which is
   looked up there as well. A head is one ``write()``, the body's is the next.
   The cycle's ``body``, ``more_body`` and ``waiting_for_100_continue``; what it has left to send: of httptools
   ``chunked_encoding`` and ``expected_content_length``, of h11 the state of ``conn`` (h11's own: ``_writer._length``,
   ``_cstate.keep_alive``); of the protocol ``root_path``, which is in front of ``raw_path``.
   ``app``, read from the configuration when a protocol is made, and by WebSocket protocols of their own.
   ``send_400_response(msg)``, which answers what is no request; of httptools ``_unsupported_upgrade_warning()``, before
   it came ``_should_upgrade_to_ws(upgrade)``, and ``pipeline``; of all ``eof_received()``, of the cycle ``keep_alive``.
5. ``ProxyHeadersMiddleware.trusted_hosts``.
6. ``FileFilter`` and the ``reload_*`` attributes of Config, for hot reload.
7. Of ``WebSocketsSansIOProtocol`` alone: ``handle_connect(request)``, which makes ``scope`` and the app's task;
   ``run_asgi()``, which gives the app ``receive`` and ``send`` of it; ``queue``, of what it has not received, and
   ``read_paused`` while something waits there; ``conn``, of websockets (``websocket_state``), which it asks before
   it sends; ``request``, ``handshake_complete``, ``close_sent``; where they are there ``start_keepalive()`` and
   ``stop_keepalive()``. It pauses reading with each message, and reads on when the last one was received, which
   ``receive()`` takes by ``queue.get()``.
8. ``import_from_string``: what ``load()`` imports the app with.
9. Of ``ZttpH2Protocol``, to which a connection is handed on by ``set_protocol()`` of its transport: ``cycles`` of
   requests in progress, ``on_stream_closed()``, and ``_close_connection()``, which sends GOAWAY.
10. ``LifespanOn.error_occured`` (later ``error_occurred``): the app knows no lifespan; ``LifespanOff`` has neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from stillup.asgi import parser_httptools, websocket_protocols, websocket_sessions
from stillup.asgi.connection import Connection
from stillup.asgi.request_counters import count_requests_of
from stillup.asgi.unknown_connection import UnknownConnection


def _h11(protocol: Any) -> Any:
    from stillup.asgi import parser_h11  # noqa: PLC0415 - h11 takes 8 ms, and most workers have httptools

    return parser_h11.connection_class(protocol)


PARSERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": parser_httptools.connection_class,
    "uvicorn.protocols.http.h11_impl:H11Protocol": _h11,
}
"""What makes our class of one of uvicorn's, by its module and name: a module that nobody has imported stays so."""
WEBSOCKETS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol": websocket_sessions.session_class,
    "uvicorn.protocols.websockets.websockets_impl:WebSocketProtocol": websocket_protocols.websocket_class,
    "uvicorn.protocols.websockets.wsproto_impl:WSProtocol": websocket_protocols.websocket_class,
}
"""The same for WebSockets."""


@cache
def connection_class(protocol: Any) -> Any:
    """The class that serves HTTP connections here, made of one of uvicorn's or of an operator's own."""
    for base in protocol.__mro__:
        if (make := PARSERS.get(_name(base))) is not None:
            count_requests_of(sys.modules[base.__module__])
            return make(protocol)
    return type(f"Unmoved{protocol.__name__}", (UnknownConnection, protocol), {})


@cache
def websocket_class(protocol: Any) -> Any:
    """The class that serves WebSockets here, made of one of uvicorn's or of an operator's own; None stays None."""
    if protocol is None or issubclass(protocol, Connection):
        return protocol
    for base in protocol.__mro__:
        if (make := WEBSOCKETS.get(_name(base))) is not None:
            return make(protocol)
    return type(f"Unknown{protocol.__name__}", (Connection, protocol), {})


def awaits_shutdown(lifespan: Any) -> bool:
    """Whether the app of a lifespan that has started is told of its shutdown."""
    failed = getattr(lifespan, "error_occurred", getattr(lifespan, "error_occured", True))
    return not failed


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__name__}"
