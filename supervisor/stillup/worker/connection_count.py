"""What a worker has open, by class."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from stillup.asgi.idle_connections import IdleConnections
from stillup.asgi.site import Site
from stillup.core.drain import WITH_TASK, ConnectionClass
from stillup.core.worker_figures import BACKGROUND

SLICE: Final = 64
"""Connections looked at in one turn of the loop, so that looking at many stops no request."""


async def count(site: Site, idle: IdleConnections, *, sessions_move: bool = True) -> dict[str, int]:
    """Open connections by class; requests whose answer is out and whose task still runs count as ``background``.

    Where sessions do not move, each is a WebSocket, and has a WebSocket's time (``core.crossing.class_of``).
    """
    classes: Counter[str] = Counter()
    if idle:
        classes[ConnectionClass.IDLE] = len(idle)
    for place, connection in enumerate(list(site.connections)):
        if (kind := connection.kind()) is not None:
            classes[kind] += 1
        if place % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    # A task that has ended leaves the set a turn of the loop later.
    running = sum(not task.done() for task in site.state.tasks)
    background = running - sum(classes[kind] for kind in WITH_TASK)
    if not sessions_move and (sessions := classes.pop(ConnectionClass.SESSION, 0)):
        classes[ConnectionClass.WEBSOCKET] += sessions
    if background > 0:
        classes[BACKGROUND] = background
    return dict(classes)
