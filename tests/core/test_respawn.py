"""When a dead worker's slot is filled again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.respawn import LONGEST, YOUNG, deaths_in_a_row, delay

DEATHS = st.integers(0, 10**9)


@given(deaths=DEATHS)
def test_the_wait_never_shrinks_and_has_a_ceiling(deaths: int) -> None:
    """One death more never means a shorter wait, and no number of deaths a longer one than the ceiling."""
    assert 0.0 <= delay(deaths) <= delay(deaths + 1) <= LONGEST == 30.0


@pytest.mark.parametrize(
    ("deaths", "seconds"), [(0, 0.0), (1, 0.0), (2, 1.5), (3, 2.25), (4, 3.375), (9, 25.62890625), (10, 30.0)]
)
def test_the_wait_grows_by_half(deaths: int, seconds: float) -> None:
    """The first death costs nothing; each one after it costs half as much again, up to 30 s."""
    assert delay(deaths) == seconds


@given(before=DEATHS, age=st.floats(0.0, 1e9))
def test_only_young_deaths_make_a_row(before: int, age: float) -> None:
    """A worker that dies young lengthens the row; one that lived a while begins a new one."""
    assert deaths_in_a_row(before, age) == (before + 1 if age < YOUNG else 1)


def test_ten_seconds_is_no_young_age() -> None:
    """A worker is young until it is 10 s old."""
    assert (deaths_in_a_row(4, 9.99), deaths_in_a_row(4, 10.0)) == (5, 1)
