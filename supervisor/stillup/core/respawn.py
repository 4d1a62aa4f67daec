"""When the slot of a worker that is dead, or to be replaced, is filled again."""

from __future__ import annotations

YOUNG = 10.0
"""Seconds; a worker that dies, or is to be replaced, before it is that old was young."""
LONGEST = 30.0
"""Seconds; the back-off's ceiling."""


def deaths_in_a_row(before: int, age: float) -> int:
    """How many deaths in a row this one makes, for a worker that lived ``age`` seconds."""
    return before + 1 if age < YOUNG else 1


def delay(deaths: int) -> float:
    """Seconds to wait before the slot is filled: none after the first death, then 1.5^n up to 30."""
    if deaths <= 1:
        return 0.0
    # The exponent is bounded so that a slot that dies all night does not overflow a float.
    return min(float(1.5 ** min(deaths - 1, 16)), LONGEST)
