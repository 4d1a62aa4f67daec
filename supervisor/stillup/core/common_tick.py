"""When to look at what is looked at periodically: at all of it together, so that an idle supervisor wakes up once."""

from __future__ import annotations

from typing import Final

EARLY: Final = 0.01
"""Of a period. Who is woken up so shortly before a tick, as a timer may, waits for the one after it."""


def until_tick(now: float, period: float) -> float:
    """Seconds until a clock is next at a multiple of a period: more than EARLY periods, and at most one and EARLY.

    Args:
        now: what the clock shows, in seconds.
        period: seconds; more than 0.
    """
    left = period - now % period
    return left if left > EARLY * period else left + period
