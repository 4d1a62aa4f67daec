"""Which reports a worker sends."""

from __future__ import annotations

from stillup.core.worker_figures import WorkerFigures
from stillup.wire.handoff_messages import Report
from stillup.worker.reporter import HEARTBEAT, Pace

QUIET = Report(WorkerFigures({"idle": 1}, 7))
BUSY = Report(WorkerFigures({"idle": 1}, 8))
WORN = Report(WorkerFigures({"idle": 1}, 7), "age 3600 s (--max-worker-age)")


def told(pace: Pace, *reports: Report, awaited: bool = False) -> list[bool]:
    """Which of these are sent, with a heartbeat between two, each a little late as they are."""
    times = [100.0 + 1.003 * HEARTBEAT * number for number in range(len(reports))]
    return [pace.takes(report, now, awaited=awaited) for report, now in zip(reports, times, strict=True)]


def test_what_is_not_new_is_told_at_intervals() -> None:
    """Every fifth second; with an interval of a heartbeat, as of a short --hang-timeout, at each."""
    assert told(Pace(5.0), *[QUIET] * 12) == [True, *[False] * 4, True, *[False] * 4, True, False]
    assert told(Pace(1.0), *[QUIET] * 4) == [True] * 4


def test_what_is_new_is_told_at_once() -> None:
    """And the interval begins anew: a request was answered, or the worker asks to be replaced, or asks no more."""
    assert told(Pace(5.0), QUIET, QUIET, BUSY, *[BUSY] * 5) == [True, False, True, *[False] * 4, True]
    assert told(Pace(5.0), QUIET, WORN, WORN, QUIET) == [True, True, False, True]


def test_what_is_waited_for_is_told_whatever_is_in_it() -> None:
    """News has come up, or the worker drains."""
    assert told(Pace(5.0), *[QUIET] * 4, awaited=True) == [True] * 4
