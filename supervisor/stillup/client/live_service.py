"""A service that somebody looks at for long: its status and its events, from one supervisor to the next.

Two threads ask: one follows the events, and one has the status once a second, and sooner when something has happened.
Both only ask, and both go on when no supervisor answers; whoever looks sees that, with what was known last.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from stillup.client import events_command
from stillup.client.control_client import Client
from stillup.errors import StillupError
from stillup.wire.api_shapes import Status
from stillup.wire.event_encoding import AnyEvent

PERIOD: Final = 1.0
"""Seconds between two looks at the status while nothing happens."""
SOON: Final = 0.2
"""Seconds between two looks while something does."""
FLOOD: Final = 20
"""Events since the last look from which on they hurry neither the next one nor the one after that."""
REST: Final = 0.05
"""Seconds without a look at the events in a flood, once all were read: to be woken for each costs more than to read."""
WAITED: Final = 0.0002
"""Seconds from one event to the next that say that it was waited for."""
ANSWER: Final = 5.0
"""Seconds that a supervisor may take to say how it is."""
EVENTS: Final = 200
"""Events that are kept."""


class Moment(msgspec.Struct, frozen=True):
    """What is known of the service now."""

    status: Status | None = None
    """The last that was answered; None if none ever was."""
    at: float = 0.0
    """When that was, by the monotonic clock."""
    trouble: str = ""
    """Why there is none that is newer; empty if there is."""
    events: tuple[AnyEvent, ...] = ()
    """The newest that are known, the oldest first."""


class LiveService:
    """What is known of a service, from ``start`` on; ``changed`` is called by either thread when that is more."""

    def __init__(self, client: Client, changed: Callable[[], None]) -> None:
        self._client = client.within(ANSWER)
        self._changed = changed
        self._known: tuple[Status | None, float, str] = (None, 0.0, "")
        """As in a Moment; exchanged at once, since others look at it meanwhile."""
        self._events: deque[AnyEvent] = deque(maxlen=EVENTS)
        self._since: int | None = None
        self._count = 0
        """Events that came since the last look at the status."""
        self._flooded = False
        """Whether there were many between the last two looks."""
        self._taken = 0.0
        """When the last event was, by the monotonic clock."""
        self._wanted = threading.Event()
        """Set when the status is to be looked at soon."""
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to ask. The threads end with the process, or soon after ``end``."""
        for work in (self._follow, self._look):
            threading.Thread(target=work, daemon=True, name=f"live {work.__name__}").start()

    def end(self) -> None:
        """Ask nothing more."""
        self._over.set()
        self._wanted.set()

    def look_soon(self) -> None:
        """Have the status looked at now: something was asked for."""
        self._wanted.set()

    def moment(self) -> Moment:
        """What is known now."""
        return Moment(*self._known, tuple(self._events))

    def _look(self) -> None:
        while not self._over.is_set():
            try:
                status = self._client.status()
            except StillupError as error:
                self._known = (*self._known[:2], str(error))
            else:
                self._known = (status, time.monotonic(), "")
            self._flooded, self._count = self._count >= FLOOD, 0
            self._changed()
            self._over.wait(SOON)
            self._wanted.wait(PERIOD - SOON)
            self._wanted.clear()

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                for event, _ in events_command.lines(self._client, self._since, follow=True, gone=self._wanted.set):
                    self._take(event)
                    if self._over.is_set():
                        return
                self._since = None  # the service has stopped: the history of the next one begins anew
            except StillupError:
                pass  # the other thread says so
            self._over.wait(PERIOD)

    def _take(self, event: AnyEvent) -> None:
        self._since = event.seq
        self._events.append(event)
        self._count += 1
        if self._count < FLOOD and not self._flooded:
            self._wanted.set()
        if self._flooded and time.monotonic() - self._taken > WAITED:
            self._over.wait(REST)
        self._taken = time.monotonic()
