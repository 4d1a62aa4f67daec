"""How the service has done lately, as the control API shows it. Durations are seconds, memory is bytes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec.structs import asdict

from stillup.core.model import Fleet
from stillup.core.series import PERIOD, SPAN, Interval, Point, RequestTotals
from stillup.wire import figure_cells

At = Annotated[datetime, msgspec.Meta(tz=True)]
"""By the wall clock: RFC 3339, UTC, with microseconds."""


class PointView(Interval, frozen=True, kw_only=True):
    """An interval with all its figures, and when it was."""

    at: At
    """Its end."""


class CutOverView(msgspec.Struct, frozen=True):
    """A generation came to serve."""

    at: At
    generation: int
    rolls_back: bool
    """Whether it took another one back."""


class SeriesView(msgspec.Struct, frozen=True):
    """The last 15 minutes, as far as this supervisor's program has been there."""

    period: float
    """Of an interval, as a rule."""
    span: float
    """That is kept at most."""
    points: list[PointView]
    """The oldest first."""
    cut_overs: list[CutOverView]
    """In the same time, the oldest first."""


def series(points: list[Point], fleet: Fleet, now: float, at: datetime) -> SeriesView:
    """Show these points, and when generations came to serve; ``at``: what ``now`` is by the wall clock."""

    def when(moment: float) -> datetime:
        return at - timedelta(seconds=now - moment)

    return SeriesView(
        PERIOD,
        SPAN,
        [PointView(**{**asdict(one), "at": when(one.at)}) for one in points],
        [
            CutOverView(when(one.cut), one.generation, one.rolls_back is not None)
            for one in fleet.rollouts
            if one.cut is not None and one.generation is not None and now - one.cut <= SPAN
        ],
    )


def request_totals(cells: list[int], lag: int, at: float) -> RequestTotals:
    """What the cells of all workers say.

    Args:
        cells: as ``Totals.service``.
        lag: in nanoseconds.
        at: by the monotonic clock.
    """
    classes = [figure_cells.answers(status) for status in figure_cells.CLASSES if status != "aborted"]
    durations = tuple(
        sum(cells[one.first + place] for one in classes) for place in range(len(figure_cells.DURATIONS) + 1)
    )
    errors = figure_cells.answers("5xx").count(cells)
    return RequestTotals(at, sum(durations), errors, durations, lag / figure_cells.SECOND)
