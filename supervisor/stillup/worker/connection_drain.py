"""The connections of a draining worker: each moves as soon as it may, or is ended by its class's rule (``core.drain``).

1. A connection is looked at when the drain begins, after whatever may have changed what it does, and when its time is
   over; nothing else decides about it.
2. While others serve, one that may move is handed over to them. Otherwise it waits for its deadline.
3. What is cut is told apart by class: in one line of the log, however many, and in the worker's figures.
4. The drain is over when no connection and no request's task is left, and, with nobody to come after, when the adoption
   queue has come to its end: what other workers gave before is served here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from stillup.asgi import request_tasks
from stillup.asgi.connection import Connection
from stillup.asgi.idle_connections import IdleConnections
from stillup.asgi.site import Site
from stillup.core.crossing import ResumeRefusal, class_of, may_move
from stillup.core.drain import (
    ANSWERING,
    ORDERLY,
    WITHOUT_REQUEST,
    ClassTimeouts,
    ConnectionClass,
    HurriedStreams,
    ends_at,
)
from stillup.core.worker_figures import BACKGROUND
from stillup.worker.connection_count import SLICE, count
from stillup.worker.connection_sender import ConnectionSender
from stillup.worker.gc_pause import leaving
from stillup.worker.session_asking import SessionAsking
from stillup.worker.standstills import Standstills

logger = logging.getLogger("uvicorn.error")

RELOOK: Final = 0.5
"""Seconds until a connection, or a task without one, is looked at again whose change makes no sound."""
LAST_WORDS: Final = 1.0
"""Seconds that a connection which was ended by its deadline gets to close in order before it is aborted."""


class ConnectionDrain:
    """One drain of one worker, from its beginning to the last connection's end.

    ``changed`` is set whenever a connection has ended, when the queue has, and when the drain itself is changed.
    """

    def __init__(
        self, site: Site, idle: IdleConnections, changed: asyncio.Event, *, timeouts: ClassTimeouts, final: bool
    ) -> None:
        self._site = site
        self._idle = idle
        self._changed = changed
        self._timeouts = timeouts
        self._final = final
        self._hurried = HurriedStreams.NONE
        self._cut_short = False
        self._interrupted = False
        self._called_off = False
        self._new_rules = False
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._standstills = Standstills(self._loop)
        self._sender: ConnectionSender | None = None
        self._asking = SessionAsking(lambda: self._sender.waiting if self._sender is not None else 0)
        self._places: dict[Connection, float] = {}
        self._seen: dict[Connection, tuple[ConnectionClass, float]] = {}
        """What each connection that has not moved does, and since when, in seconds after the beginning."""
        self._timers: dict[Connection, asyncio.TimerHandle] = {}
        self._looks: dict[Connection, bool] = {}
        """What is looked at in the loop's next turn, and whether it is held until then."""
        self._unsent: set[Connection] = set()
        """Those that say when all has left that was written."""
        self._ended: set[Connection] = set()
        self._to_cut: dict[Connection, ConnectionClass] = {}
        """Those whose request's time is over, until the loop's next turn."""
        self._background: dict[asyncio.Task[None], float] = {}
        """Tasks whose answer is out, and since when that was seen."""
        self._task_timer: asyncio.TimerHandle | None = None
        self.told_to_close = 0
        """Connections that ended while answers said ``Connection: close``: they had one, or their client left."""
        self.closed = 0
        """Connections without a request in progress that had to be ended."""
        self.cut: Counter[str] = Counter()
        """By class, what was ended before it was done."""

    @property
    def final(self) -> bool:
        return self._final

    def send_with(self, sender: ConnectionSender) -> None:
        """Hand over what may move, from here on."""
        self._sender = sender

    def shorten(self, timeout: float, *, final: bool) -> None:
        """End all within so many seconds, if that is sooner. ``final``: nobody takes over any more (``core.drain``)."""
        self._final = self._final or final
        self._timeouts = self._timeouts.within(self._age() + timeout)
        self._rules_changed()

    def hurry(self, which: HurriedStreams) -> None:
        """End endless answers now."""
        if self._hurried is not HurriedStreams.ALL:
            self._hurried = which
        self._rules_changed()

    def _rules_changed(self) -> None:
        self._new_rules = True
        self._changed.set()

    def interrupt(self) -> None:
        """End ``run`` soon, with whatever is left as it is; it may be run again, and all deadlines stay."""
        self._interrupted = True
        self._changed.set()

    def call_off(self) -> None:
        """Let what is left be served as if there had been no drain; what was ended by its deadline ends."""
        self._called_off = True
        self.interrupt()
        if self._sender is not None:
            self._sender.rest()
        self._site.on_arrival = self._site.on_change = None
        self._site.connections.observe_no_more()
        self._asking.stop()
        for connection in self._unsent:
            connection.hear_as_usual()
        for connection in list(self._seen):
            self._refused(connection)

    def cut_short(self) -> None:
        """End everything now."""
        self._cut_short = True
        self._changed.set()

    def oldest(self) -> dict[str, float]:
        """For each class, how many seconds its oldest connection has been doing that in this drain."""
        ages: dict[str, float] = {ConnectionClass.IDLE: self._age()} if self._idle else {}
        for kind, since in self._seen.values():
            ages[kind] = max(ages.get(kind, 0.0), self._age() - since)
        return ages

    async def run(self, queue_ended: Callable[[], bool]) -> None:
        """Wait until all has moved or ended, or ``interrupt``. What is left at the drain's own deadline is cut.

        ``queue_ended`` says whether the adoption queue has come to its end; ``changed`` is set when that happens, too.
        """
        self._interrupted = False
        if self._called_off:
            return
        self._site.on_arrival = self._site.on_change = self.look
        self._site.connections.observe(self._forget)
        try:
            with leaving():
                await self._look_at_all()
                self._look_at_tasks()
                while not await self._is_over(queue_ended):
                    if self._interrupted:
                        return
                    if self._new_rules:  # perhaps while all were looked at
                        self._new_rules = False
                        await self._look_at_all()
                    else:
                        await self._until_changed(self._timeouts.whole - self._age())
                if self._called_off:
                    return
                if self._sender is not None:
                    self._sender.rest()
                await self._cut()
        finally:
            self._asking.stop()
            self._standstills.stop()
            # A drain that is run again looks at all connections anew.
            for timer in (*self._timers.values(), self._task_timer):
                if timer is not None:
                    timer.cancel()

    def _forget(self, connection: Connection) -> None:
        """Keep nothing of a connection that has left: thousands of them would make the process end late."""
        self.told_to_close += self._site.says_close and connection not in self._ended and connection.is_ending()
        self._seen.pop(connection, None)
        self._places.pop(connection, None)
        self._ended.discard(connection)
        self._unsent.discard(connection)
        if (timer := self._timers.pop(connection, None)) is not None:
            timer.cancel()
        self._asking.forget(connection)
        connection.unfollow()
        self._changed.set()

    async def _is_over(self, queue_ended: Callable[[], bool]) -> bool:
        if self._over(queue_ended):
            await self._idle.made()  # one that wakes is in neither place for a turn
        return self._over(queue_ended)

    def _over(self, queue_ended: Callable[[], bool]) -> bool:
        if self._cut_short or self._age() >= self._timeouts.whole:
            return True
        state = self._site.state
        return not (self._site.connections or state.tasks or self._idle) and (not self._final or queue_ended())

    async def _until_changed(self, seconds: float) -> None:
        """Wait for the end of a connection, or of a request's task once there are only those, or a change of rules."""
        self._changed.clear()
        changed = self._loop.create_task(self._changed.wait())
        try:
            tasks = () if self._site.connections or self._idle else self._site.state.tasks
            await asyncio.wait([changed, *tasks], timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _look_at_all(self) -> None:
        if self._final and self._sender is not None:
            self._sender.stop()
        if self._final:
            self._standstills.watch()
            await self._idle.wake()
        elif self._sender is not None:
            self._sender.offer_idle(self._idle)
        connections = list(self._site.connections)
        for place, connection in enumerate(connections):
            if connection in self._site.connections:
                self._places.setdefault(connection, place / len(connections))
            self._look(connection)
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def look(self, connection: Connection) -> None:
        """Look at a connection once its own code, which says that something has changed, has returned.

        Nothing is read from it until then: else a client that asks without a pause would never be between requests.
        """
        if connection in self._looks:
            return
        found = connection.standing()
        held = found is not None and may_move(found) and self._sender is not None and connection.hold()
        if not self._looks:
            self._loop.call_soon(self._look_now)
        self._looks[connection] = held

    def _look_now(self) -> None:
        looks, self._looks = self._looks, {}
        for connection in looks:
            self._look(connection)
        if self._sender is not None and not self._called_off:
            self._sender.send_now()
        for connection, held in looks.items():
            if held:
                connection.release()

    def _look(self, connection: Connection) -> None:
        if self._called_off or connection in self._ended:
            return
        if (timer := self._timers.pop(connection, None)) is not None:
            timer.cancel()
        if connection not in self._site.connections:
            other = connection.current_protocol()
            if isinstance(other, Connection) and other in self._site.connections and other not in self._seen:
                self.look(other)  # it has become a WebSocket
            return
        found = connection.standing()
        sender = self._sender if self._sender is not None and self._sender.works else None
        move = sender is not None and sender.takes_sessions
        kind = class_of(found, sessions_move=move) if found is not None else connection.kind()
        if kind is None:
            return
        age = self._age()
        seen, since = self._seen.get(connection, (kind, age))
        since = since if seen is kind else age
        self._seen[connection] = (kind, since)
        connection.follow(self._site.changed)
        if found is not None and sender is not None:
            if may_move(found):
                sender.offer(connection)
                return
            if found.unsent and not found.answering:
                self._unsent.add(connection)
                connection.hear_when_sent()
            if kind is ConnectionClass.SESSION and found.answering:
                self._asking.want(connection)
        elif self._refused(connection):
            return
        event_source = found is not None and found.event_source
        self._end_in_time(connection, kind, self._since(connection, kind, since), event_source=event_source)

    def _refused(self, connection: Connection) -> bool:
        """End a WebSocket that its app has handed over, as nobody takes it, or has in time; whether it is one."""
        found = connection.standing()
        if found is None or not found.session or found.answering:
            return False
        self._ended.add(connection)
        connection.refuse(ResumeRefusal.NOT_TAKEN)
        return True

    def _since(self, connection: Connection, kind: ConnectionClass, seen: float) -> float:
        """When a connection came to do what it does: of one that nothing was read of, when it was accepted."""
        if kind is ConnectionClass.UNREAD and connection.made is not None:
            return connection.made - self._began
        return seen

    def _end_in_time(self, connection: Connection, kind: ConnectionClass, since: float, *, event_source: bool) -> None:
        whole, age = self._timeouts.whole, self._age()
        at = ends_at(
            kind,
            timeouts=self._timeouts,
            final=self._final,
            since=since,
            # One that was adopted during the drain is the last of its spread: its next request may be on its way.
            place=self._places.get(connection, 1.0),
            lost=self._standstills.since(self._began + since) if self._final else 0.0,
            hurried=self._hurried,
            event_source=event_source,
        )
        if at <= age < whole and at < whole:
            if not self._refused(connection):
                self._end(connection, kind)
            return
        if kind is ConnectionClass.UPGRADING:
            at = min(at, age + RELOOK)  # nothing tells when the app has accepted it
        if at < whole:
            self._timers[connection] = self._loop.call_at(self._began + at, self._look, connection)

    def _end(self, connection: Connection, kind: ConnectionClass) -> None:
        self._ended.add(connection)
        if kind in ANSWERING or kind is ConnectionClass.UPGRADING:
            if not self._to_cut:
                self._loop.call_soon(self._cut_some)
            self._to_cut[connection] = kind
            return
        self.closed += kind in WITHOUT_REQUEST
        if kind not in ORDERLY:
            self._note_cut({kind: 1})
        connection.end()

    def _cut_some(self) -> None:
        """Cut the requests whose time is over; those of one moment together, and in one line."""
        cut, self._to_cut = self._to_cut, {}
        owners = {id(connection.task_owner()) for connection in cut}
        for task in list(self._site.state.tasks):
            if id(request_tasks.owner(task)) in owners:
                request_tasks.cut(task)
        for connection in cut:
            # Uvicorn answers 500 if no answer has begun, and closes.
            if connection in self._site.connections:
                self._timers[connection] = self._loop.call_later(LAST_WORDS, connection.abort)
        self._note_cut(Counter(cut.values()))

    def _look_at_tasks(self) -> None:
        """Cut what runs on after its answer once it has done so for as long as a request may take."""
        self._task_timer = None
        age, state = self._age(), self._site.state
        if self._timeouts.requests >= self._timeouts.whole:
            return  # they end with all else
        running = [task for task in state.tasks if request_tasks.is_background(task, self._site.connections)]
        self._background = {task: self._background.get(task, age) for task in running}
        late = [task for task, since in self._background.items() if since + self._timeouts.requests <= age]
        for task in late:
            request_tasks.cut(task)
        if late:
            self._note_cut({BACKGROUND: len(late)})
        self._task_timer = self._loop.call_later(RELOOK, self._look_at_tasks)

    def _note_cut(self, cut: Mapping[str, int]) -> None:
        self.cut.update({kind: number for kind, number in cut.items() if kind not in ORDERLY})
        said = ", ".join(f"{number} {kind}" for kind, number in cut.items())
        logger.warning("drain ended %s after %.1f s", said, self._age())

    async def _cut(self) -> None:
        """The drain's own time is over: end what is left, and say what that was."""
        state = self._site.state
        await self._idle.wake()
        left = await count(self._site, self._idle)
        if self._called_off:
            return
        if left:
            self._note_cut(left)
        cut = list(self._site.connections)
        for connection in cut:
            kind = connection.kind()
            # Where a request is under way its task is cut.
            if kind is None or kind in ANSWERING or connection in self._ended or self._refused(connection):
                continue
            self._ended.add(connection)
            self.closed += kind in WITHOUT_REQUEST
            connection.end()
        for task in list(state.tasks):
            request_tasks.cut(task)
        deadline = self._loop.time() + LAST_WORDS
        while (self._site.connections or state.tasks) and self._loop.time() < deadline and not self._called_off:
            await self._until_changed(deadline - self._loop.time())
        for connection in [one for one in cut if one in self._site.connections]:  # not what came since
            connection.abort()

    def _age(self) -> float:
        return self._loop.time() - self._began
