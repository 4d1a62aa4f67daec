"""The door for operators: ``control.sock``, and who stands there."""

from __future__ import annotations

import asyncio
import logging
import socket
import weakref
from typing import Any, Final

from supervisor.asgi import borrowed
from supervisor.asgi.acceptor import Acceptor
from supervisor.asgi.borrowed import Site, make_config, never_asked
from supervisor.host import peer
from supervisor.host.sources import Arrival, SpareBacklog

logger = logging.getLogger("stillup")

MOST: Final = 256
"""Connections open at a time."""
SPARE: Final = 4
"""Connections that can be taken when no descriptor is free: 'status' has to answer then above all."""
HEAD_DEADLINE: Final = 10.0
"""Seconds that a caller may take to say what he wants."""
LAST_ANSWERS: Final = 1.0
"""Seconds for answers that are under way when the supervisor ends."""


class ControlDoor:
    """Serves the control API on a listening Unix socket; owns it and its connections."""

    def __init__(self, sock: socket.socket, app: Any) -> None:
        config = make_config(
            app,
            {
                "http": "h11",
                "ws": "none",
                "lifespan": "off",
                "proxy_headers": False,
                "access_log": False,
                "log_config": None,
                "server_header": False,
                "timeout_keep_alive": 60,
            },
        )
        self._site = Site(config)
        self._site.load()
        self._loop = asyncio.get_running_loop()
        self._acceptor = Acceptor(SpareBacklog("control", sock, SPARE), self._protocol)
        self._acceptor.start()

    def _protocol(self, arrival: Arrival) -> asyncio.Protocol | None:
        connection = arrival.socket
        if len(self._site.state.connections) >= MOST:
            logger.warning("control.sock: %s turned away: %d connections are open", peer.principal(connection), MOST)
            return None
        self._site.refresh_headers()
        protocol = self._site.protocol({"principal": peer.principal(connection)}, arrival)
        # Weakly: a connection that has ended must not wait for its deadline to be forgotten.
        self._loop.call_later(HEAD_DEADLINE, self._end_if_silent, weakref.ref(protocol))
        return protocol

    def _end_if_silent(self, weak: weakref.ref[Any]) -> None:
        connection = weak()
        if connection in self._site.state.connections and never_asked(connection):
            borrowed.abort(connection)

    async def close(self) -> None:
        """Take no more callers, let answers that are under way go out, then hang up on everybody.

        To be called last: a caller who waits for the supervisor's end sees it by this.
        """
        await self._acceptor.stop()
        if self._site.state.tasks:
            await asyncio.wait(self._site.state.tasks, timeout=LAST_ANSWERS)
        for connection in list(self._site.state.connections):
            borrowed.abort(connection)
        await asyncio.sleep(0)  # a turn for the transports to close their sockets
