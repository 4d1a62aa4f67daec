"""The bounds of a median, by which a commit is found to be slower than another."""

from __future__ import annotations

import pytest

from benchmarks.before import bounds


@pytest.mark.parametrize(("count", "outside"), [(1, 0), (5, 0), (6, 0), (9, 1), (15, 3), (30, 9)])
def test_bounds(count: int, outside: int) -> None:
    """They are the ratios that the tables of the sign test name for 95 %, whatever the order of the rounds."""
    ratios = [float(n * 7 % 31) for n in range(count)]
    _, low, high = bounds(ratios)
    assert (low, high) == (sorted(ratios)[outside], sorted(ratios)[-1 - outside])


def test_median() -> None:
    """The median is that of all rounds."""
    assert bounds([1.2, 0.9, 1.0])[0] == 1.0
