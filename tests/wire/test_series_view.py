"""The last minutes in the control API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from stillup.core.events import RollbackAsked
from stillup.core.series import SPAN, RequestTotals, point
from stillup.wire import figure_cells, series_view
from stillup.wire.series_view import CutOverView, SeriesView
from tests.core.story import NEW, OLD, Story, serving

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def taken_back() -> Story:
    """Generation 2 served after generation 1, and 3 takes it back."""
    story = serving(1)
    story.now = 100.0
    story.reload(NEW)
    story.come_to_serve()
    story.now = 200.0
    story.tell(RollbackAsked(OLD, "", "test"))
    story.come_to_serve()
    return story


def test_moments_by_the_wall_clock() -> None:
    """A point and a cut-over stand where they were, by the clock that people have."""
    story = taken_back()
    seen = series_view.series([point(RequestTotals(205.0), RequestTotals(210.0), story.fleet)], story.fleet, 210.0, NOW)
    assert [one.at for one in seen.points] == [NOW]
    assert seen.cut_overs[1:] == [
        CutOverView(NOW - timedelta(seconds=110), 2, rolls_back=False),
        CutOverView(NOW - timedelta(seconds=10), 3, rolls_back=True),
    ]
    assert msgspec.json.decode(msgspec.json.encode(seen), type=SeriesView) == seen


def test_cut_overs_are_as_old_as_points() -> None:
    """What is older than any point is left out."""
    story = taken_back()
    assert [one.generation for one in series_view.series([], story.fleet, 150.0 + SPAN, NOW).cut_overs] == [3]
    assert series_view.series([], story.fleet, 201.0 + SPAN, NOW).cut_overs == []


def test_totals_are_of_what_was_answered() -> None:
    """Of every class of answers; who left before there was one is no answer."""
    cells = [0] * figure_cells.CELLS
    for status, seconds in (("2xx", 0.002), ("2xx", 0.03), ("5xx", 99.0), ("aborted", 1.0)):
        figure_cells.answers(status).observe(cells, seconds)
    seen = series_view.request_totals(cells, 250_000_000, 7.0)
    assert (seen.at, seen.requests, seen.errors, seen.lag) == (7.0, 3, 1, 0.25)
    assert [place for place, count in enumerate(seen.durations) if count] == [1, 5, 13]
