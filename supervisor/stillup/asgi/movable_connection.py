"""What the connections of those parsers share that may move to another worker (``core.crossing``).

What stands between here and uvicorn is paid for by every request, so it is as little as can be; what a drain alone
needs is put into its place by ``follow``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace
from uvicorn.config import Config

from stillup.asgi import answer_sessions
from stillup.asgi.connection import Connection
from stillup.asgi.lingering_close import LingeringCloseTransport
from stillup.asgi.request_counters import answered_at_once, cut_off
from stillup.core.crossing import MOST_READ, ResumeRefusal, Standing, class_of
from stillup.core.drain import ConnectionClass
from stillup.host.sources import Arrival
from stillup.wire.adoption_packet import ConnectionInfo
from stillup.wire.session_format import OpenAnswer

if TYPE_CHECKING:
    from stillup.asgi.site import Site

OWN: Final = ("arrival", "made", "requests", "site")
"""What each has of ours, in slots. Uvicorn's attributes are 28: with more than 30 in its dictionary a connection has a
table of names of its own (CPython), which costs a short one 2 % of its time."""
LEAST_KEEP_ALIVE: Final = 0.2
"""Seconds that a connection which was moved is kept at least: its next request may have come on the way."""
_SAYING: Final = ("data_received", "on_response_complete", "resume_writing")
"""The methods of a protocol that may change what it is doing."""


class MovableConnection(Connection):
    """Mixed into a class whose parser says where it stands: what a subclass has to have raises here."""

    _handed: OpenAnswer | None = None
    """The answer under way, once its app has handed it over."""
    _moved = False
    """Whether the queue has it."""
    _remakes = False
    """Whether what the parser is given is a request that is made again."""

    # Of uvicorn's class:
    transport: asyncio.Transport
    config: Config
    cycle: Any
    limit_concurrency: int | None
    app: Any
    root_path: str
    on_response_complete: Callable[[], None]
    timeout_keep_alive: float
    timeout_keep_alive_task: asyncio.TimerHandle | None
    timeout_keep_alive_handler: Callable[[], None]
    _unset_keepalive_if_required: Callable[[], None]

    def begin(self, site: Site, arrival: Arrival) -> None:
        self.site = site
        self.arrival = arrival
        self.made = None
        self.requests = 0

    def all_here(self) -> bool:
        """Whether no part of a request is still to come."""
        raise NotImplementedError

    def parsed(self) -> Standing:
        """What the parser has seen so far."""
        raise NotImplementedError

    def behind(self) -> bytes | None:
        """What was read behind the request in progress; None where another one waits there, or it is not known."""
        raise NotImplementedError

    def left_to_send(self) -> int:
        """Bytes of an answer's body that are to come, by its Content-Length."""
        raise NotImplementedError

    def is_kept(self) -> bool:
        """Whether the connection is kept when the answer under way is complete."""
        raise NotImplementedError

    def go_on(self, cycle: Any, answer: OpenAnswer) -> None:
        """Have what a request's app sends be the rest of an answer."""
        raise NotImplementedError

    def connection_made(self, transport: Any) -> None:
        site, arrival = self.site, self.arrival
        self.made = time.monotonic()
        super().connection_made(LingeringCloseTransport(transport, arrival.socket, site.write_batch, site.cells))
        if site.most_read is not None:
            transport.max_size = site.most_read
        if arrival.info is not None:
            self._take_up(arrival.info)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._moved:
            cut_off(self.site.cells, self.cycle)
        super().connection_lost(exc)
        # uvicorn's own does that without an error alone: all that was here would stay until its time is over.
        self._unset_keepalive_if_required()
        # Each has the other: no connection that was answered would leave without the garbage collector.
        self.cycle = None

    def eof_received(self) -> bool | None:
        """Keep a connection whose client has shut down writing, until its request is answered.

        Uvicorn closes it. Whether the client has closed its socket instead cannot be told until something is sent. An
        app that listens for a disconnect is told of one, and then it is as uvicorn has it; so it is where the answer
        has begun: whoever leaves then has most likely left.
        """
        cycle = self.cycle
        if cycle is None or not cycle.began or cycle.answer is not None or not self.all_here():
            return None
        if not self.transport.can_write_eof():  # TLS has no half of a connection
            return None
        cycle.keep_alive = False
        cycle.half_closed = True
        cycle.message_event.set()
        return True

    def send_400_response(self, msg: str) -> None:
        if self._remakes:
            return  # its answer has begun
        answered_at_once(self.site.cells, 4)
        super().send_400_response(msg)  # type: ignore[misc]

    def said_last(self) -> bool:
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

    def owes(self) -> bool:
        return not self.all_here()

    def task_owner(self) -> object:
        return self.cycle

    # How it moves

    def kind(self) -> ConnectionClass | None:
        found = self.standing()
        return class_of(found) if found is not None else super().kind()

    def standing(self) -> Standing | None:
        if self.is_ending() or self not in self.site.connections:  # it may have become a WebSocket
            return None
        found = self.parsed()
        if self._handed is None:
            return found
        head = self.behind()
        return replace(found, answering=False, streaming=False, event_source=False, head=head, session=True)

    def follow(self, look: Callable[[Connection], None]) -> None:
        if "resume_writing" in vars(self):
            return
        for name in _SAYING:
            setattr(self, name, _then(getattr(self, name), partial(look, self)))
        if self.cycle is not None:
            self.cycle.on_response = self.on_response_complete
        for cycle, _ in getattr(self, "pipeline", ()):
            cycle.on_response = self.on_response_complete
        self.transport.set_protocol(self)  # uvloop looks a protocol's methods up here, once

    def unfollow(self) -> None:
        for name in _SAYING:
            vars(self).pop(name, None)

    def describe(self, head: bytes, now: float) -> ConnectionInfo:
        timer = self.timeout_keep_alive_task
        since = timer.when() - self.timeout_keep_alive if timer is not None else None
        return ConnectionInfo(self.arrival.listener, now, self.requests, since, head)

    # How the answer under way goes with it

    def may_hand_over(self) -> bool:
        """Whether somebody takes over answers, and this one, whose request is all here, could leave as it stands."""
        behind = self.behind()
        known = behind is not None and len(behind) <= MOST_READ
        return known and self._handed is None and not self.is_ending() and self.site.gives_sessions()

    def hand_over(self, answer: OpenAnswer) -> None:
        """Its app has left the rest of the answer under way to the next one."""
        self._handed = answer
        self.hold()
        self.site.changed(self)

    def packed(self) -> OpenAnswer | None:
        return self._handed

    def let_go(self) -> None:
        self._moved = True
        super().let_go()

    def _take_up_answer(self, answer: OpenAnswer) -> None:
        """Make the request again, and go on with its answer; where it cannot be made, that is cut."""
        app, self.app = self.app, answer_sessions.going_on(self.app, answer, self.site.refuse)
        self._remakes = True
        self.data_received(answer_sessions.head_of(answer))
        self._remakes, self.app = False, app
        cycle = self.cycle
        if cycle is None or not self.all_here() or self.behind() != b"":
            self.site.refuse(ResumeRefusal.UNREADABLE)
            self.transport.close()
            return
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        cycle.answer = answer_sessions.start_of(answer)

    def _take_up(self, info: ConnectionInfo) -> None:
        """Go on where another worker left it."""
        if self.limit_concurrency is not None:
            self._exempt()
        if isinstance(self.arrival.session, OpenAnswer):
            self._take_up_answer(self.arrival.session)
        self.requests = info.requests
        if self.site.on_arrival is not None:
            self.site.on_arrival(self)
        if info.read and not self.is_ending():
            self.data_received(info.read)
        elif info.idle_since is not None:
            loop = asyncio.get_running_loop()
            # By the loop's clock alone: uvloop's stands still during a turn; what is reckoned from both is off by that.
            due = max(info.idle_since + self.timeout_keep_alive, loop.time() + LEAST_KEEP_ALIVE)
            self.timeout_keep_alive_task = loop.call_at(due, self.timeout_keep_alive_handler)

    def _exempt(self) -> None:
        """Have the next request answered whatever ``limit_concurrency`` is: nobody is turned away for having moved."""
        complete = self.on_response_complete

        def completed() -> None:
            self.limit_concurrency = self.config.limit_concurrency
            complete()

        self.limit_concurrency = None
        self.on_response_complete = completed


def _then(method: Callable[..., None], after: Callable[[], None]) -> Callable[..., None]:
    def both(*args: Any) -> None:
        method(*args)
        after()

    return both
