"""Idle connections that were adopted: no transport and no protocol is made for them until their client speaks.

A transport and a protocol are most of what adopting costs. Of thousands of connections most say nothing for a long
time, and many not before the next reload.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final

from stillup.asgi.acceptor import Acceptor
from stillup.asgi.movable_connection import LEAST_KEEP_ALIVE
from stillup.host.idle_poll import IdlePoll
from stillup.host.sources import Arrival

SLICE: Final = 64
"""Connections woken in one turn of the loop, so that waking thousands stops no request."""


class IdleConnections:
    """Connections without a protocol, each with its keep-alive time. Owns them until they wake, or are handed over."""

    def __init__(
        self, protocol: Callable[[Arrival], asyncio.Protocol | None], keep_alive: float, handed_over: Callable[[], None]
    ) -> None:
        """Serve those that wake with what ``protocol`` makes of them; ``handed_over`` is told when some were.

        Whoever is idle for ``keep_alive`` seconds is woken, for its protocol to end it.
        """
        self._loop = asyncio.get_running_loop()
        self._poll = IdlePoll()
        self._acceptor = Acceptor(self._poll, protocol)
        self._keep_alive = keep_alive
        self._handed_over = handed_over
        self._due: list[tuple[float, int, Arrival]] = []
        """A heap of when each is to be woken; some in it are not here any more."""
        self._numbers = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._acceptor.start()

    def __len__(self) -> int:
        return len(self._poll)

    def keep(self, arrival: Arrival) -> bool:
        """Take a connection in; False if it is not idle, and so still the caller's."""
        info = arrival.info
        if info is None or info.idle_since is None or info.read:
            return False
        try:
            self._poll.add(arrival)
        except OSError:  # no memory for it, perhaps: it is served like any other
            return False
        due = info.idle_since + self._keep_alive - LEAST_KEEP_ALIVE
        heapq.heappush(self._due, (due, next(self._numbers), arrival))
        if self._alarm is None or due < self._alarm_at:
            self._set_alarm()
        return True

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._due:
            self._alarm_at = self._due[0][0]
            self._alarm = self._loop.call_later(max(0.0, self._alarm_at - time.monotonic()), self._wake_due)

    def _wake_due(self) -> None:
        now, due = time.monotonic(), list[Arrival]()
        while self._due and self._due[0][0] <= now and len(due) < SLICE:
            arrival = heapq.heappop(self._due)[2]
            if arrival in self._poll:
                due.append(arrival)
        self._wake(due)
        self._set_alarm()

    def _wake(self, arrivals: Sequence[Arrival]) -> None:
        self._poll.remove(arrivals)
        self._acceptor.serve(arrivals)

    async def wake(self) -> None:
        """Wake them all. Each has its protocol when this returns."""
        while self._poll:
            self._wake(self._poll.first(SLICE))
            await asyncio.sleep(0)
        await self.made()

    async def made(self) -> None:
        """Wait until those that are waking have their protocols."""
        await self._acceptor.made()

    def first(self, most: int) -> list[Arrival]:
        """So many of those that have been here longest; they stay."""
        return self._poll.first(most)

    def let_go(self, arrivals: Sequence[Arrival]) -> None:
        """Close this process's copies of connections that somebody else has, too, without a word to their clients."""
        self._poll.remove(arrivals)
        for arrival in arrivals:
            arrival.socket.close()
        self._handed_over()

    def descriptors(self) -> list[int]:
        """Of all of them, and of what watches them."""
        return self._poll.descriptors()

    async def stop(self) -> None:
        """End those that are still here. Idempotent."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        await self._acceptor.stop()
