"""When to look at what is looked at periodically: at multiples of its period on the monotonic clock.

All looks of the same period share a wake-up so, in an idle supervisor and in all that are idle on a host: the processor
sleeps on between them (sd_event_add_time(3) has timers coincide for the same reason).
"""

from __future__ import annotations

from typing import Final

SHORTEST: Final = 0.5
"""Of a period: a tick that is nearer than that is left out."""


def until_tick(now: float, period: float) -> float:
    """Seconds until the next look: at least a half of a period, and at most one and a half.

    Args:
        now: what the clock shows, in seconds.
        period: seconds; more than 0.
    """
    left = period - now % period
    return left if left >= SHORTEST * period else left + period
