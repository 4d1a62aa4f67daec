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

from stillup.asgi.lingering_close import LingeringCloseTransport
from stillup.asgi.request_counters import counting_handshakes
from stillup.asgi.site import Site
from stillup.asgi.uvicorn_adapter import PARSERS, WEBSOCKETS, connection_class, websocket_class
from stillup.host.sources import Arrival


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


def _served(ours: Any) -> Any:
    """The class of HTTP connections, whose connections find what a ``Site`` and an ``Acceptor`` would have given."""

    class Served(ours):  # type: ignore[misc]
        def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
            super().__init__(config, server_state, app_state, _loop)
            if not hasattr(server_state, "site"):
                server_state.site = Site(config)
                server_state.site.state = server_state
                server_state.site.connections = server_state.connections
            self.site = server_state.site
            self.config = copy.copy(config)
            self.config.loaded_app = counting_handshakes(config.loaded_app, self.site.cells)

        def connection_made(self, transport: Any) -> None:
            connection = transport.get_extra_info("socket")
            if not hasattr(transport, "can_write_eof"):
                connection = connection or _Addresses(transport)
                transport = _Imitation(transport, self)
            self.arrival = Arrival(connection, "", unix=False)
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


for _name in PARSERS:
    _replace(_name, lambda theirs: _served(connection_class(theirs)))
for _name in WEBSOCKETS:
    _replace(_name, websocket_class)
LingeringCloseTransport.__getattr__ = _asked_for  # type: ignore[attr-defined]
