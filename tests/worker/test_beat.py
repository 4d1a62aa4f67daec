"""When a worker reports."""

from __future__ import annotations

import pytest

from supervisor.worker.server import patience


@pytest.mark.parametrize(
    ("took", "left", "seconds"),
    [
        (0.0, 1.0, 0.1),  # a report that costs nothing
        (0.01, 1.0, 0.1),
        (0.05, 1.0, 0.5),  # one that holds others up
        (0.05, 0.3, 0.3),  # the beat is due
        (0.5, 1.0, 1.0),
        (0.5, 0.0, 0.1),  # what comes together is reported together all the same
        (0.0, -1.0, 0.1),
    ],
)
def test_news_waits_in_proportion(took: float, left: float, seconds: float) -> None:
    """It waits ten times as long as the last report took, but not beyond the beat, and never for less than a little."""
    assert patience(took, left) == pytest.approx(seconds)
