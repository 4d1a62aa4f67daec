"""Fisher's exact test: it agrees with its definition, and is no more often wrong than it says."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core import significance
from stillup.core.significance import Sample, p_value

SIZES = st.integers(0, 60)


def exactly(sample: Sample, reference: Sample) -> float:
    """What it is defined as, in whole numbers."""
    total, hits = sample.of + reference.of, sample.hits + reference.hits
    ways = sum(comb(hits, n) * comb(total - hits, sample.of - n) for n in range(sample.hits, min(hits, sample.of) + 1))
    return float(Fraction(ways, comb(total, sample.of)))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    of = draw(SIZES)
    return Sample(draw(st.integers(0, of)), of)


@given(sample=samples(), reference=samples())
def test_it_is_what_it_is_defined_as(sample: Sample, reference: Sample) -> None:
    """Where the share is larger; where it is not, it is 1."""
    if sample.hits * reference.of > reference.hits * sample.of:
        assert p_value(sample, reference) == pytest.approx(exactly(sample, reference), rel=1e-9)
    else:
        assert p_value(sample, reference) == 1.0


@given(of=SIZES, others=SIZES, data=st.data(), alpha=st.sampled_from([0.01, 0.05]))
def test_no_more_false_alarms_than_stated(of: int, others: int, data: st.DataObject, alpha: float) -> None:
    """Of all ways in which hits may fall on two sides that are alike, at most so many are significant."""
    hits = data.draw(st.integers(0, of + others))
    ways = {n: comb(of, n) * comb(others, hits - n) for n in range(max(0, hits - others), min(hits, of) + 1)}
    alarms = sum(count for n, count in ways.items() if p_value(Sample(n, of), Sample(hits - n, others)) < alpha)
    assert alarms <= alpha * sum(ways.values())


def test_shares() -> None:
    """Of nothing it is none."""
    assert (Sample(0, 0).share, Sample(1, 4).share) == (0.0, 0.25)


@pytest.mark.parametrize("hits", [2_500_000, 2_529_200, 2_529_600, 2_530_000, 2_540_000, 4_000_000])
def test_what_it_costs(hits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the samples are, and whatever they say, no more than some thousands of terms are summed."""
    terms = 0

    def counted(*bounds: int) -> Iterator[int]:
        nonlocal terms
        for number in range(*bounds):
            terms += 1
            yield number

    monkeypatch.setattr(significance, "range", counted, raising=False)
    p_value(Sample(hits, 5_000_000), Sample(2_470_000, 5_000_000))
    assert 0 < terms < 10_000


def test_large_samples() -> None:
    """A difference is found; so is that there is none."""
    much = 2**53
    assert p_value(Sample(much // 10, much), Sample(much // 100, much)) < 1e-9
    assert p_value(Sample(much // 10 + 10, much), Sample(much // 10, much)) > 0.4
