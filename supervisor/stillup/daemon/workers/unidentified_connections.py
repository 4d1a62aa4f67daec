"""Connections to ``handoff.sock`` of which it is not known yet whose they are: how many there may be, and which goes.

1. Strangers have MOST_STRANGERS, and one of our workers, which is known by its pid, MOST_OF_ONE of its own. One more,
   and the oldest goes on which nothing was said yet, or else the oldest.
2. Strangers have one account for all that they ask (``core.message_allowance``). When it is spent they are hung up on
   at once, unless one of them may be a worker whose pid is not known yet.
"""

from __future__ import annotations

import time
from typing import Final

from stillup.core.message_allowance import Allowance
from stillup.host.channel import Channel

MOST_STRANGERS: Final = 64
MOST_OF_ONE: Final = 2
PAUSE: Final = 0.02
"""Seconds without accepting after a turn in which strangers connected, while no worker is expected."""
SHORT_PAUSE: Final = 0.002
"""The same while one is: strangers cost a part of each turn, and the worker behind them waits for that many turns."""
MOST_A_TURN: Final = 8
"""Connections that are accepted in one turn of the loop."""


class UnidentifiedConnections:
    """The channels belong to who has them here until they are identified."""

    def __init__(self) -> None:
        self._pids: dict[Channel, int] = {}
        """The pid of the worker that it is of, by the kernel's word; 0 of a stranger's."""
        self._silent: set[Channel] = set()
        """Those on which nothing was said yet."""
        self._strangers = Allowance(time.monotonic(), MOST_STRANGERS)

    def __len__(self) -> int:
        return len(self._pids)

    def may_ask(self) -> bool:
        """Whether one more stranger is asked who it is."""
        return self._strangers.spend(1, time.monotonic())

    def add(self, channel: Channel, pid: int) -> None:
        """One more, of the worker with that pid, or of a stranger (0). An older one may have to be closed for it."""
        rivals = [other for other, its in self._pids.items() if its == pid]
        if len(rivals) >= (MOST_OF_ONE if pid else MOST_STRANGERS):
            goes = next((other for other in rivals if other in self._silent), rivals[0])
            self.remove(goes)
            goes.close()
        self._pids[channel] = pid
        self._silent.add(channel)

    def heard(self, channel: Channel) -> None:
        """Something was said on it."""
        self._silent.discard(channel)

    def remove(self, channel: Channel) -> None:
        """It is known whose it is, or it has ended. Idempotent."""
        self._pids.pop(channel, None)
        self._silent.discard(channel)

    def close(self) -> None:
        """Close those that nobody has identified."""
        for channel in self._pids:
            channel.close()
