"""A plugin for pytest: in uvicorn's own tests, our classes serve where uvicorn's would.

Each of uvicorn's classes that ours are made of (``asgi.uvicorn_adapter``) is replaced in its module, before any test
imports it, by ours, with what a ``Site`` gives each of its connections. The tests look at connections from inside, and
give them transports that are imitations; what those lack, and what they are asked for, is added here.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable
from typing import Any

from stillup.asgi.handshake_counter import CountingApp
from stillup.asgi.lingering_close import LingeringCloseTransport
from stillup.asgi.site import Site
from stillup.asgi.uvicorn_adapter import PARSERS, WEBSOCKETS, connection_class, websocket_class
from stillup.host.sources import Arrival

OTHERS = ("uvicorn.protocols.http.zttp_impl:ZttpProtocol", "uvicorn.protocols.http.auto_zttp_impl:AutoZttpProtocol")
"""Parsers that we do not know: their connections stay where they are."""


class _Imitation:
    """A transport of uvicorn's tests, with the methods that only a real one has."""

    def __init__(self, transport: Any, protocol: Any) -> None:
        self._transport = transport
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def can_write_eof(self) -> bool:
        """No: whoever closes it closes it at once."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = self._transport.get_extra_info(name)
        return default if found is None else found

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return 0


class _Addresses:
    """What stands for the socket of a transport that has none: it is closed, and knows its addresses."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def fileno(self) -> int:
        return -1

    def getsockname(self) -> Any:
        return self._transport.get_extra_info("sockname")

    def getpeername(self) -> Any:
        return self._transport.get_extra_info("peername")


def _asked_for(transport: Any, name: str) -> Any:
    """What a test reads of an imitated transport, as it is once the loop's turn is over."""
    transport.flush()
    return getattr(transport._inner, name)


def _site(served: Any, config: Any, server_state: Any) -> Site:
    """What connections of a server have in common."""
    if not hasattr(server_state, "site"):
        server_state.site = site = Site(config)
        site.state, site.connections, site._class = server_state, server_state.connections, served
    found: Site = server_state.site
    return found


def _arriving(connection: Any, transport: Any) -> Any:
    """Give a connection what an ``Acceptor`` would have; the transport, as it may see it."""
    sock = transport.get_extra_info("socket")
    if not hasattr(transport, "can_write_eof"):
        sock = sock or _Addresses(transport)
        transport = _Imitation(transport, connection)
    connection.arrival = Arrival(sock, "", unix=False)
    return transport


def _served(ours: Any) -> Any:
    """The class of HTTP connections, whose connections find what a ``Site`` and an ``Acceptor`` would have given."""

    class Served(ours):  # type: ignore[misc]
        def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self.begin(_site(ours, config, server_state), None)
            self.config = copy.copy(config)
            self.config.loaded_app = CountingApp(config.loaded_app, self.site.cells)

        def connection_made(self, transport: Any) -> None:
            super().connection_made(_arriving(self, transport))

    return Served


def _served_websocket(theirs: Any) -> Any:
    """The class of WebSockets, of which some tests make one that was no connection of HTTP before."""
    ours: Any = websocket_class(theirs)

    class Served(ours):  # type: ignore[misc]
        def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self._of = config, server_state

        def connection_made(self, transport: Any) -> None:
            if not isinstance(transport, LingeringCloseTransport):
                self.site = _site(object, *self._of)
                transport = _arriving(self, transport)
            super().connection_made(transport)

    return Served


def _replace(name: str, make: Callable[[Any], Any]) -> None:
    """Replace a class of uvicorn's, whose module and name these are; whether a test asks for its name is not known."""
    module_name, _, class_name = name.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of websockets' is deprecated
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # an older uvicorn, or the library is not here
            return
    ours = make(getattr(module, class_name))
    ours.__name__ = class_name
    setattr(module, class_name, ours)


for _name in (*PARSERS, *OTHERS):
    _replace(_name, lambda theirs: _served(connection_class(theirs)))
for _name in WEBSOCKETS:
    _replace(_name, _served_websocket)
LingeringCloseTransport.__getattr__ = _asked_for  # type: ignore[attr-defined]
