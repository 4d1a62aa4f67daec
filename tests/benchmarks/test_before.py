"""The bounds of a median, by which a commit is found to be slower than another."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest

from benchmarks.before import bounds


@pytest.mark.parametrize(("count", "outside"), [(1, 0), (5, 0), (6, 0), (8, 3), (10, 8), (15, 25), (25, 89)])
def test_bounds(count: int, outside: int) -> None:
    """They are the means that the tables of Wilcoxon's test name for 95 % (two-sided), whatever the rounds' order."""
    ratios = [1.0 + (n * 7 % 31) / 50 for n in range(count)]
    _, low, high = bounds(ratios)
    pairs = itertools.combinations_with_replacement(ratios, 2)
    means = sorted(math.sqrt(one * other) for one, other in pairs)
    assert (low, high) == pytest.approx((means[outside], means[-1 - outside]))


def test_median() -> None:
    """It is the middle of the means of each two, the geometric ones: what is half as fast weighs as what is twice."""
    assert bounds([0.5, 1.0, 2.0])[0] == pytest.approx(1.0)
    assert bounds([1.2, 0.9])[0] == pytest.approx(statistics.median([0.9, math.sqrt(0.9 * 1.2), 1.2]))
