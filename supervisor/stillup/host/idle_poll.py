"""Watching idle connections that were adopted, for which nothing is made until their client speaks.

They wait in an epoll(7) of their own. That has a descriptor, which is readable when one of them is: so they are a
source of connections like any other.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from stillup.host.sources import Arrival

BATCH: Final = 8
"""Connections that leave it at a time because their clients have spoken."""


class IdlePoll:
    """A source of those whose clients speak. Owns the connections in it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._held: dict[int, Arrival] = {}
        """By descriptor, in the order in which they came."""

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, arrival: Arrival) -> bool:
        return self._held.get(arrival.socket.fileno()) is arrival

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, arrival: Arrival) -> None:
        """Watch a connection.

        Raises:
            OSError: the kernel has no memory, or this user watches too much (epoll_ctl(2)); it is still the caller's.
        """
        fd = arrival.socket.fileno()
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)
        self._held[fd] = arrival

    def first(self, most: int) -> list[Arrival]:
        """So many of those that have been here longest; they stay."""
        return list(islice(self._held.values(), most))

    def remove(self, arrivals: Iterable[Arrival]) -> None:
        """Watch them no longer; they are the caller's."""
        for arrival in arrivals:
            fd = arrival.socket.fileno()
            # Closing would not do: epoll(7) keeps what another process has open, too.
            self._epoll.unregister(fd)
            del self._held[fd]

    def take(self) -> Sequence[Arrival]:
        """Some whose clients have spoken, or have left."""
        spoken = [self._held[fd] for fd, _ in self._epoll.poll(0, BATCH)]
        self.remove(spoken)
        return spoken

    def descriptors(self) -> list[int]:
        """Of all of them, and of what watches them; none once it is closed."""
        return [] if self._epoll.closed else [self._epoll.fileno(), *self._held]

    def close(self) -> None:
        """End them all."""
        for arrival in self._held.values():
            arrival.socket.close()
        self._held.clear()
        self._epoll.close()
