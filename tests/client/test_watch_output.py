"""The watch of a canary in the lines of ``reload`` and ``status``."""

from __future__ import annotations

import pytest

from stillup.client.watch_output import passed_line, watch_lines
from stillup.core.values import replace
from stillup.wire import fleet_views
from stillup.wire.api_shapes import RolloutView
from stillup.wire.watch_views import SideView, WatchView
from tests.core.canary_story import watched

STORY = watched()
VIEW = fleet_views.rollout(STORY.fleet, STORY.rollout(2), STORY.now)
OLD, NEW = SideView(1000, 1, 0.039, 0.0), SideView(500, 1, 0.041, 0.0)
WATCH = WatchView(1, 60.0, 200, 38.2, None, 552.0, None, None, 0.11, OLD, NEW)


def with_watch(watch: WatchView | None) -> RolloutView:
    return replace(VIEW, watch=watch)


def test_how_it_does() -> None:
    """How many, what share, what is compared, with the old ones in brackets, and for how long."""
    (line,) = watch_lines(with_watch(WATCH))
    assert line.startswith("  canary    1/4 on gen 2, 11 % of requests, 5xx 0.2 % (old 0.1), p99 41 ms (39) ")
    assert line.endswith("38/60 s")
    (line,) = watch_lines(with_watch(replace(WATCH, old=None, new=None)))
    assert line.split() == ["canary", "1/4", "on", "gen", "2", "38/60", "s"]
    (line,) = watch_lines(with_watch(replace(WATCH, old=SideView(0, 0, 0.0, 0.0))))
    assert "(old 0.0)" in line


@pytest.mark.parametrize(
    ("reason", "new", "says"),
    [
        ("few-requests", SideView(62, 0, 0.0, 0.0), "62 of 200 requests"),
        ("few-requests", NEW, "next to no requests of late"),
        ("silent", NEW, "not all new workers serve, and are heard"),
        ("share", NEW, "11 % of the requests are not its part"),
        ("errors", NEW, "worse in errors, and not yet for sure"),
    ],
)
def test_what_it_is_held_for(reason: str, new: SideView, says: str) -> None:
    """And what can be done, and what happens otherwise, and when."""
    held = replace(WATCH, held_for=3.0, reason=reason, new=new)
    assert watch_lines(with_watch(held))[1] == f"  hold      {says}; promote, abort, or goes back in 9m12s"
    soon = replace(held, goes_back_in=7.9)
    assert watch_lines(with_watch(soon))[1].endswith("goes back in 7 s")


def test_what_has_come_of_it() -> None:
    """Nothing is said of a watch that has not begun, or has failed: why is the rollout's word."""
    over = replace(WATCH, watched_for=None, goes_back_in=None)
    assert watch_lines(with_watch(over)) == watch_lines(with_watch(None)) == []
    assert passed_line(with_watch(None)) == passed_line(with_watch(replace(over, verdict="fail"))) == ""
    assert passed_line(with_watch(replace(over, verdict="pass"))).startswith(
        "  canary    passed, 11 % of requests, 5xx"
    )
    assert passed_line(with_watch(replace(over, verdict="ungated", new=None))) == "  canary    not judged, and lives"
