"""Whoever looks at something periodically does so at the same ticks of the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.common_tick import SHORTEST, until_tick

PERIOD = st.floats(0.5, 60.0)
NOW = st.floats(0.0, 1e6)
NEARLY = 1e-6
"""Seconds that floats are off by, at most."""


@given(now=NOW, period=PERIOD)
def test_the_wait_ends_at_a_tick(now: float, period: float) -> None:
    """None is so near that whom a timer wakes up early would wait for it a second time."""
    left = until_tick(now, period)
    off = (now + left) % period
    assert min(off, period - off) == pytest.approx(0.0, abs=NEARLY)
    assert SHORTEST * period <= left <= (1 + SHORTEST) * period + NEARLY


@given(tick=st.integers(0, 10_000), late=st.floats(0.01, 0.49), later=st.floats(0.01, 0.49), period=PERIOD)
def test_those_who_are_as_late_wait_for_the_same_tick(tick: int, late: float, later: float, period: float) -> None:
    """The next one, whenever in the first half of the interval each has ended its look."""
    for part in (late, later):
        now = (tick + part) * period
        assert now + until_tick(now, period) == pytest.approx((tick + 1) * period, abs=NEARLY)
