"""The connections of a draining worker: each moves as soon as it may, or is ended by its class's rule (``core.drain``).

1. A connection is looked at when the drain begins, after whatever may have changed what it does, and when its time is
   over; nothing else decides about it.
2. While others serve, one that may move is given to them. Otherwise it waits for its deadline.
3. The drain is over when no connection and no request's task is left, and, with nobody to come after, when the adoption
   queue has come to its end: what other workers gave before is served here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from supervisor.asgi import borrowed
from supervisor.asgi.borrowed import Site, classify
from supervisor.asgi.resting import Resting
from supervisor.core.crossing import class_of, may_move
from supervisor.core.drain import ConnectionClass, ends_at
from supervisor.worker.giving import Giver
from supervisor.worker.lull import leaving

_WITH_TASK = (
    ConnectionClass.IN_PROGRESS,
    ConnectionClass.STREAM,
    ConnectionClass.UPGRADING,
    ConnectionClass.WEBSOCKET,
)
_WITHOUT_REQUEST: Final = frozenset({ConnectionClass.UNREAD, ConnectionClass.IDLE, ConnectionClass.HALF_READ})

logger = logging.getLogger("uvicorn.error")

RELOOK: Final = 0.5
"""Seconds until a connection is looked at again whose change makes no sound."""
LAST_WORDS: Final = 1.0
"""Seconds that a connection which was ended by its deadline gets to close in order before it is aborted."""
SLICE: Final = 64
"""Connections looked at in one turn of the loop, so that a drain of many stops no request."""
BACKGROUND: Final = "background"
"""What a request's task is called whose answer is out."""


async def count(site: Site, resting: Resting) -> dict[str, int]:
    """Open connections by class; requests whose answer is out and whose task still runs count as ``background``."""
    classes: Counter[str] = Counter()
    if resting:
        classes[ConnectionClass.IDLE] = len(resting)
    for place, connection in enumerate(list(site.state.connections)):
        if (kind := classify(connection)) is not None:
            classes[kind] += 1
        if place % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    # A task that has ended leaves the set a turn of the loop later.
    running = sum(not task.done() for task in site.state.tasks)
    background = running - sum(classes[kind] for kind in _WITH_TASK)
    if background > 0:
        classes[BACKGROUND] = background
    return dict(classes)


class Drain:
    """One drain of one worker, from its beginning to the last connection's end.

    ``changed`` is set whenever a connection has ended, when the queue has, and when the drain itself is changed.
    """

    def __init__(self, site: Site, resting: Resting, changed: asyncio.Event, *, timeout: float, final: bool) -> None:
        self._site = site
        self._resting = resting
        self._changed = changed
        self._timeout = timeout
        self._final = final
        self._hurried = False
        self._cut_short = False
        self._new_rules = False
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._giver: Giver | None = None
        self._places: dict[Any, float] = {}
        self._seen: dict[Any, tuple[ConnectionClass, float]] = {}
        """What each connection that has not moved does, and since when, in seconds after the beginning."""
        self._timers: dict[Any, asyncio.TimerHandle] = {}
        self._looks: dict[Any, bool] = {}
        """What is looked at in the loop's next turn, and whether it is held until then."""
        self._ended: set[Any] = set()
        self.closed = 0
        """Connections without a request in progress that had to be ended."""

    @property
    def final(self) -> bool:
        return self._final

    def give_to(self, giver: Giver) -> None:
        """Give away what may move from here on."""
        self._giver = giver

    def become_final(self, timeout: float) -> None:
        """Nobody takes over any more: the classes get their final deadlines; the whole ends no later than before."""
        self._final = True
        self._timeout = min(self._timeout, self._age() + timeout)
        self._rules_changed()

    def hurry(self) -> None:
        """End endless answers now."""
        self._hurried = True
        self._rules_changed()

    def _rules_changed(self) -> None:
        self._new_rules = True
        self._changed.set()

    def cut_short(self) -> None:
        """End everything now."""
        self._cut_short = True
        self._changed.set()

    def oldest(self) -> dict[str, float]:
        """For each class, how many seconds its oldest connection has been doing that in this drain."""
        ages: dict[str, float] = {ConnectionClass.IDLE: self._age()} if self._resting else {}
        for kind, since in self._seen.values():
            ages[kind] = max(ages.get(kind, 0.0), self._age() - since)
        return ages

    async def run(self, queue_ended: Callable[[], bool]) -> None:
        """Wait until all has moved or ended. What is left at the drain's own deadline is cut.

        ``queue_ended`` says whether the adoption queue has come to its end; ``changed`` is set when that happens, too.
        """
        self._site.on_arrival = self.look
        self._site.connections.watch(self._forget)
        try:
            with leaving():
                await self._look_at_all()
                while not await self._is_over(queue_ended):
                    if self._new_rules:  # perhaps while all were looked at
                        self._new_rules = False
                        await self._look_at_all()
                    else:
                        await self._until_changed(self._timeout - self._age())
                if self._giver is not None:
                    self._giver.stop()
                await self._cut()
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _forget(self, connection: Any) -> None:
        """Keep nothing of a connection that has left: thousands of them would make the process end late."""
        self._seen.pop(connection, None)
        self._places.pop(connection, None)
        self._ended.discard(connection)
        if (timer := self._timers.pop(connection, None)) is not None:
            timer.cancel()
        borrowed.unfollow(connection)
        self._changed.set()

    async def _is_over(self, queue_ended: Callable[[], bool]) -> bool:
        if self._over(queue_ended):
            await self._resting.made()  # one that wakes is in neither place for a turn
        return self._over(queue_ended)

    def _over(self, queue_ended: Callable[[], bool]) -> bool:
        if self._cut_short or self._age() >= self._timeout:
            return True
        state = self._site.state
        return not (state.connections or state.tasks or self._resting) and (not self._final or queue_ended())

    async def _until_changed(self, seconds: float) -> None:
        """Wait for the end of a connection, or of a request's task once there are only those, or a change of rules."""
        self._changed.clear()
        changed = self._loop.create_task(self._changed.wait())
        try:
            tasks = () if self._site.state.connections or self._resting else self._site.state.tasks
            await asyncio.wait([changed, *tasks], timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _look_at_all(self) -> None:
        if self._final and self._giver is not None:
            self._giver.stop()
        if self._final:
            await self._resting.wake()
        elif self._giver is not None:
            self._giver.offer_resting(self._resting)
        connections = list(self._site.state.connections)
        for place, connection in enumerate(connections):
            if connection in self._site.state.connections:
                self._places.setdefault(connection, place / len(connections))
            self._look(connection)
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def look(self, connection: Any) -> None:
        """Look at a connection once its own code, which says that something has changed, has returned.

        Nothing is read from it until then: else a client that asks without a pause would never be between requests.
        """
        if connection in self._looks:
            return
        found = borrowed.standing(connection)
        held = found is not None and may_move(found) and self._giver is not None and borrowed.hold(connection)
        if not self._looks:
            self._loop.call_soon(self._look_now)
        self._looks[connection] = held

    def _look_now(self) -> None:
        looks, self._looks = self._looks, {}
        for connection in looks:
            self._look(connection)
        if self._giver is not None:
            self._giver.give_now()
        for connection, held in looks.items():
            if held:
                borrowed.release(connection)

    def _look(self, connection: Any) -> None:
        if (timer := self._timers.pop(connection, None)) is not None:
            timer.cancel()
        if connection not in self._site.state.connections:
            heir = borrowed.heir(connection)
            if heir in self._site.state.connections and heir not in self._seen:
                self.look(heir)  # it has become a WebSocket
            return
        if connection in self._ended:
            return
        found = borrowed.standing(connection)
        kind = class_of(found) if found is not None else classify(connection)
        if kind is None:
            return
        age = self._age()
        seen, since = self._seen.get(connection, (kind, age))
        if seen is not kind:
            since = age
        self._seen[connection] = (kind, since)
        if found is not None and self._giver is not None and self._giver.works:
            if may_move(found):
                self._giver.offer(connection)
                return
            if found.unsent and not found.answering:
                borrowed.hear_when_sent(connection)
        borrowed.follow(connection, self.look)
        self._end_in_time(connection, kind, since, age)

    def _end_in_time(self, connection: Any, kind: ConnectionClass, since: float, age: float) -> None:
        at = ends_at(
            kind,
            timeout=self._timeout,
            final=self._final,
            since=since,
            # One that was adopted during the drain is the last of its spread: its next request may be on its way.
            place=self._places.get(connection, 1.0),
            hurried=self._hurried,
        )
        if at <= age < self._timeout and at < self._timeout:
            self._end(connection, kind)
            return
        if kind is ConnectionClass.UPGRADING:
            at = age + RELOOK  # nothing tells when the app has accepted it
        if at < self._timeout:
            self._timers[connection] = self._loop.call_at(self._began + at, self._look, connection)

    def _end(self, connection: Any, kind: ConnectionClass) -> None:
        self._ended.add(connection)
        self.closed += kind in _WITHOUT_REQUEST
        borrowed.end(connection, kind)

    async def _cut(self) -> None:
        """The drain's own time is over: end what is left, and say what that was."""
        state = self._site.state
        await self._resting.wake()
        left = await count(self._site, self._resting)
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
            await self._until_changed(deadline - self._loop.time())
        for connection in list(state.connections):
            borrowed.abort(connection)

    def _age(self) -> float:
        return self._loop.time() - self._began
