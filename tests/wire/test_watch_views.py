"""The watch of a canary as the API, the status line and the events show it."""

from __future__ import annotations

from stillup.core.events import AbortAsked, PromoteAsked
from stillup.core.values import replace
from stillup.wire import fleet_views
from stillup.wire.api_shapes import RolloutView
from stillup.wire.status_line import status_line
from stillup.wire.watch_views import SideView
from tests.core.canary_story import ONE, canary, counts, intervals, watched
from tests.core.story import Story


def shown(story: Story, number: int = 2) -> RolloutView:
    return fleet_views.rollout(story.fleet, story.rollout(number), story.now)


def test_before_it_is_watched() -> None:
    """There is nothing to show."""
    view = shown(canary())
    assert (view.strategy, view.watch) == ("canary", None)


def test_while_it_is_watched() -> None:
    """How many are, since when, until when at most; and how both sides do, once that was looked at."""
    story = watched()
    view = shown(story)
    assert view.watch is not None
    assert view.step is not None
    assert (view.step.old, view.step.new, view.step.of) == (4, 1, 4)
    assert (view.watch.workers, view.watch.lasts, view.watch.least) == (1, 60.0, 200)
    assert (view.watch.watched_for, view.watch.goes_back_in, view.watch.held_for) == (0.0, 120.0, None)
    assert (view.watch.old, view.watch.new, view.watch.verdict) == (None, None, None)
    assert "gen 2 is watched, 1 of 4 workers" in status_line(story.fleet)
    intervals(story, 1, counts(100))
    watch = shown(story).watch
    assert watch is not None
    assert watch.watched_for == 10.0
    assert isinstance(watch.old, SideView)
    assert isinstance(watch.new, SideView)
    assert (watch.old.requests, watch.new.requests, watch.share) == (400, 100, 0.2)


def test_while_it_is_held() -> None:
    """Since when, and why."""
    story = watched(strategy=replace(ONE, min_requests=100_000))
    intervals(story, 7, counts(100))
    watch = shown(story).watch
    assert watch is not None
    assert (watch.held_for, watch.reason) == (10.0, "few-requests")
    assert watch.goes_back_in == 50.0


def test_once_it_has_ended() -> None:
    """What has come of it stays; the clocks do not."""
    story = watched()
    story.tell(PromoteAsked("asked"))
    watch = shown(story).watch
    assert watch is not None
    assert (watch.verdict, watch.watched_for, watch.goes_back_in) == ("promoted", None, None)
    story = watched()
    story.tell(AbortAsked("asked"))
    assert status_line(story.fleet) == "gen 1 serves, 4 of 4 workers; gen 2 drains"
