"""Points of the last minutes, made of counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.events import Reported
from stillup.core.model import Fleet
from stillup.core.policy import Policy
from stillup.core.series import MOST, PERIOD, SPAN, RequestTotals, Series, point
from stillup.core.worker_figures import BOUNDS, WorkerFigures
from tests.core.story import serving

NONE = Fleet(policy=Policy(), size=1)
BUCKETS = st.lists(st.integers(0, 2**53), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1).map(tuple)
TOTALS = st.builds(
    RequestTotals,
    at=st.floats(0, 1e6),
    requests=st.integers(0, 2**53),
    errors=st.integers(0, 2**53),
    durations=BUCKETS | st.just(()),
    lag=st.floats(0, 1e3),
)


def test_a_point_is_what_came_in_between() -> None:
    """Rates over the interval; quantiles of its own requests alone; gauges as they are at its end."""
    story = serving(2)
    story.tell(Reported(1, WorkerFigures({"idle": 3, "background": 9}, memory=10)))
    story.tell(Reported(2, WorkerFigures({"stream": 1}, memory=32)))
    before = RequestTotals(100.0, requests=1000, errors=10, durations=(0,) * 13 + (1000,))
    after = RequestTotals(105.0, requests=1100, errors=15, durations=(100, *(0,) * 12, 1000), lag=0.25)
    made = point(before, after, story.fleet)
    assert (made.at, made.seconds, made.requests, made.errors) == (105.0, 5.0, 20.0, 1.0)
    assert made.p50 == pytest.approx(0.0005)
    assert made.p99 == pytest.approx(0.00099)
    assert (made.lag, made.memory, made.connections) == (0.25, 42, 4)
    assert (made.workers, made.generation) == (2, 1)


def test_nothing_is_no_duration() -> None:
    """Without a request there is no time that any took, and without a generation none that serves."""
    made = point(RequestTotals(0.0), RequestTotals(5.0), NONE)
    assert (made.requests, made.p50, made.p99, made.generation) == (0.0, None, None, None)


def test_no_time_is_no_interval() -> None:
    """It would be divided by."""
    with pytest.raises(ValueError, match="no interval"):
        point(RequestTotals(5.0), RequestTotals(5.0), NONE)


def test_what_is_kept_is_bounded() -> None:
    """15 minutes, however long it goes on; the first totals begin the first interval."""
    series = Series()
    for number in range(3 * MOST):
        series.add(RequestTotals(number * PERIOD, requests=number), NONE)
    now = (3 * MOST - 1) * PERIOD
    kept = series.since(now - SPAN)
    assert (len(kept), kept[0].at, kept[-1].at) == (MOST, now - SPAN + PERIOD, now)
    assert len(series.since(now - 2 * SPAN)) == MOST
    assert [one.at for one in series.since(now - PERIOD)] == [now]


def test_two_looks_at_once_are_one() -> None:
    """A clock that did not go on makes no point."""
    series = Series()
    for at in (1.0, 1.0, 2.0):
        series.add(RequestTotals(at), NONE)
    assert [one.at for one in series.since(0.0)] == [2.0]


@given(TOTALS, TOTALS)
def test_points_make_sense_of_anything(before: RequestTotals, after: RequestTotals) -> None:
    """Also of counts that fall: figures that were lost with a file are no negative rate."""
    if after.at <= before.at:
        return
    made = point(before, after, NONE)
    assert made.requests >= 0
    assert made.errors >= 0
    assert made.p50 is None or 0 <= made.p50 <= BOUNDS[-1]
    assert made.p99 is None or made.p50 is None or made.p50 <= made.p99
