"""The connections of a draining worker, each waited for and ended by its class's rule (``core.drain``)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

from supervisor.asgi import borrowed
from supervisor.asgi.borrowed import Site, classify
from supervisor.core.drain import ConnectionClass, ends_at

_WITH_TASK = (
    ConnectionClass.IN_PROGRESS,
    ConnectionClass.STREAM,
    ConnectionClass.UPGRADING,
    ConnectionClass.WEBSOCKET,
)

logger = logging.getLogger("uvicorn.error")

RELOOK = 0.5
"""Seconds until a connection is looked at again whose change makes no sound."""
LAST_WORDS = 1.0
"""Seconds that a connection which was ended by its deadline gets to close in order before it is aborted."""


def count(site: Site) -> dict[str, int]:
    """Open connections by class; requests whose answer is out and whose task still runs count as ``background``."""
    classes = Counter(str(kind) for kind in (classify(c) for c in site.state.connections) if kind is not None)
    # A task that has ended leaves the set a turn of the loop later.
    running = sum(not task.done() for task in site.state.tasks)
    background = running - sum(classes[kind] for kind in _WITH_TASK)
    if background > 0:
        classes["background"] = background
    return dict(classes)


class Drain:
    """One drain of one worker, from its beginning to the last connection's end.

    ``changed`` is set whenever a connection or a request's task has ended, and when the drain itself is changed.
    """

    def __init__(self, site: Site, changed: asyncio.Event, *, timeout: float, final: bool) -> None:
        self._site = site
        self._changed = changed
        self._timeout = timeout
        self._final = final
        self._hurried = False
        self._cut_short = False
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._places: dict[Any, float] = {}
        self._seen: dict[Any, tuple[ConnectionClass, float]] = {}
        """What each connection does, and since when, in seconds after the beginning."""
        self._ended: set[Any] = set()

    @property
    def final(self) -> bool:
        return self._final

    def become_final(self, timeout: float) -> None:
        """Nobody takes over any more: the classes get their final deadlines; the whole ends no later than before."""
        self._final = True
        self._timeout = min(self._timeout, self._age() + timeout)
        self._changed.set()

    def hurry(self) -> None:
        """End endless answers now."""
        self._hurried = True
        self._changed.set()

    def cut_short(self) -> None:
        """End everything now."""
        self._cut_short = True
        self._changed.set()

    async def run(self) -> None:
        """Wait until every connection and every request's task has ended, ending those whose time has come."""
        state = self._site.state
        connections = list(state.connections)
        self._places = {connection: place / len(connections) for place, connection in enumerate(connections)}
        while (state.connections or state.tasks) and not self._cut_short:
            self._changed.clear()
            due = self._end_due()
            if not (state.connections or state.tasks):
                break
            await _wait(self._changed, due - self._loop.time())
            if self._age() >= self._timeout:
                break
        await self._cut()

    def _end_due(self) -> float:
        """End what is due; the time at which something is due next."""
        age = self._age()
        due = self._timeout
        for connection in list(self._site.state.connections):
            kind = classify(connection)
            if kind is None or connection in self._ended:
                continue
            if kind is ConnectionClass.UPGRADING:
                due = min(due, age + RELOOK)  # nothing tells when the app has accepted it
            seen, since = self._seen.get(connection, (kind, 0.0))
            if seen is not kind:
                since = age
            self._seen[connection] = (kind, since)
            at = ends_at(
                kind,
                timeout=self._timeout,
                final=self._final,
                since=since,
                place=self._places.get(connection, 0.0),
                hurried=self._hurried,
            )
            if at > age:
                due = min(due, at)
            elif at < self._timeout:
                self._end(connection, kind)
        return self._began + due

    def _end(self, connection: Any, kind: ConnectionClass) -> None:
        self._ended.add(connection)
        borrowed.end(connection, kind)

    async def _cut(self) -> None:
        """The drain's own time is over: end what is left, and say what that was."""
        state = self._site.state
        left = count(self._site)
        if left:
            logger.warning(
                "drain ended %s after %.1f s", ", ".join(f"{n} {kind}" for kind, n in left.items()), self._age()
            )
        for connection in list(state.connections):
            kind = classify(connection)
            # Where a request is under way its task is cancelled, and uvicorn answers 500 if there is no answer yet.
            if kind is not None and kind not in (ConnectionClass.IN_PROGRESS, ConnectionClass.STREAM):
                self._end(connection, kind)
        for task in list(state.tasks):
            task.cancel("drain deadline")
        deadline = self._loop.time() + LAST_WORDS
        while (state.connections or state.tasks) and self._loop.time() < deadline:
            self._changed.clear()
            await _wait(self._changed, deadline - self._loop.time())
        for connection in list(state.connections):
            borrowed.abort(connection)

    def _age(self) -> float:
        return self._loop.time() - self._began


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return
