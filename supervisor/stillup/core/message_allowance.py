"""How much a worker may say on its channel: an account of its own, which fills with time and outlives its connections.

1. Each message costs one, and more by its size; coming back on another connection costs COMING_BACK.
2. What a worker says when all is well costs at most about one a second, and ten a second while connections cross.
3. An account fills twice as fast as a worker has anything to say, so that it needs no more than AT_START; MOST is there
   for a supervisor that was stopped and finds a full socket. One that says more than its account has is cut off.
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST: Final = 320.0
"""What an account holds: more than lies unread in a socket with the kernel's usual buffer, which takes 278 short
messages (net.core.wmem_default, 212,992 bytes; Linux 6.1)."""
AT_START: Final = 192.0
"""What a worker has at its start, or when a supervisor first hears of it: it may have to come back more than once."""
PER_SECOND: Final = 20.0
"""By how much an account fills: twice what a worker says while connections cross."""
BYTES: Final = 2048
"""Each so many bytes of a message cost one more."""
COMING_BACK: Final = 64.0
"""What it costs to come back: a conversation of several messages, an event, a record."""


class Allowance(msgspec.Struct):
    """One worker's account; ``at``, when ``left`` was right, is seconds on the monotonic clock."""

    at: float
    left: float = AT_START

    def spend(self, cost: float, now: float) -> bool:
        """Take so much from it; False, and nothing is taken, when there is not so much."""
        self.left = min(MOST, self.left + PER_SECOND * (now - self.at))
        self.at = now
        if cost > self.left:
            return False
        self.left -= cost
        return True


def cost_of(size: int) -> float:
    """What a message of so many bytes costs."""
    return 1.0 + size // BYTES
