"""Whoever looks at something periodically does so at the same ticks of the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.common_tick import EARLY, until_tick

PERIOD = st.floats(0.5, 60.0)


@given(now=st.floats(0.0, 1e6), period=PERIOD)
def test_the_wait_ends_at_a_tick(now: float, period: float) -> None:
    """One comes in each period; none is so near that whom a timer wakes up early would wait for it a second time."""
    left = until_tick(now, period)
    off = (now + left) % period
    assert min(off, period - off) == pytest.approx(0.0, abs=1e-6)
    assert EARLY * period < left <= (1 + EARLY) * period


@given(first=st.floats(0.0, 1e6), later=st.floats(0.0, 1.0), period=PERIOD)
def test_those_who_wait_for_the_same_tick_wake_up_together(first: float, later: float, period: float) -> None:
    """Whenever each began to wait."""
    second = first + later * (until_tick(first, period) - EARLY * period)
    assert second + until_tick(second, period) == pytest.approx(first + until_tick(first, period), abs=1e-6)
