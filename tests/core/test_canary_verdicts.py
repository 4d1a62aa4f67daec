"""How a watch ends by its figures: the canary fails, or it cannot be told."""

from __future__ import annotations

from typing import Any

import pytest

from stillup.core import side_by_side
from stillup.core.commands import BeginDrain, Spawn
from stillup.core.events import ChannelLost, PromoteAsked, ScaleAsked
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.core.values import replace
from stillup.core.watch import Verdict, WatchReason
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import Refused
from tests.core.canary_story import NEW, OLD, ONE, counts, intervals, look, report, state, watch, watched
from tests.core.rolling_story import drain, take_over
from tests.core.story import Story

BY_HALVES = replace(ONE, canary=50, canary_percent=True)
THEN_ROLLING = replace(ONE, rolls=True)


def news_of_abort(story: Story) -> tuple[object, object]:
    return story.news["rollout.aborted"]["reason"], story.news["rollout.aborted"]["why"]


# It fails


def test_errors_in_two_intervals_running() -> None:
    """The first is suspicious, the second is enough: what was new leaves, and the reload is told why."""
    story = watched()
    intervals(story, 1, counts(100, errors=10))
    assert (state(story), watch(story).suspected) == (RolloutState.WATCHING, (WatchReason.ERRORS,))
    intervals(story, 1, counts(100, errors=12))
    assert news_of_abort(story) == ("gate", "5xx 12.0 % (old 0.0 %)")
    assert (watch(story).verdict, watch(story).reason) == (Verdict.FAIL, WatchReason.ERRORS)
    assert (state(story), story.generations()) == (
        RolloutState.ABORTED,
        {1: GenerationState.SERVING, 2: GenerationState.DRAINING},
    )
    assert drain(5, packet=16) in story.orders
    assert watch(story).baseline == {}


def test_errors_in_every_other_interval() -> None:
    """Once and again is not twice running; but what is worse in all is not passed, either."""
    story = watched()
    for _ in range(3):
        intervals(story, 1, counts(100, errors=20))
        intervals(story, 1, counts(100))
    assert (state(story), watch(story).reason) == (RolloutState.WATCHING, WatchReason.ERRORS)
    assert story.news["canary.held"] == {
        "rollout": 2,
        "generation": 2,
        "reason": "errors",
        "seconds": 60.0,
        "old_requests": 2400,
        "new_requests": 600,
    }


def test_errors_on_both_sides() -> None:
    """What both suffer is no difference."""
    story = watched()
    intervals(story, 6, counts(100, errors=30), counts(100, errors=28))
    assert watch(story).verdict is Verdict.PASS


def test_it_is_slow() -> None:
    """One of twenty takes ten times as long."""
    story = watched()
    intervals(story, 2, counts(100, slow=5))
    assert news_of_abort(story) == ("gate", "p99 90 ms (old 5 ms)")


def test_its_event_loop_comes_late() -> None:
    """Every other heartbeat does, though what it answers is well."""
    story = watched()
    intervals(story, 2, counts(100, beats=10, late=5), counts(100, beats=10))
    assert news_of_abort(story) == ("gate", "event loops late by 247 ms (old 1 ms)")


def test_it_is_cut_off() -> None:
    """Who breaks the protocol serves nobody any more: it has failed, though its process lives on and drains."""
    story = watched()
    intervals(story, 5, counts(100))
    story.tell(ChannelLost(5, "says too much"))
    assert news_of_abort(story) == ("channel", "2.1 (pid 105) says too much")
    assert (state(story), story.workers()[5]) == (RolloutState.ABORTED, WorkerState.DRAINING)


# It cannot be told


def test_too_few_requests() -> None:
    """It is held when its time is over, and given up at the timeout; the looks in between say nothing new."""
    story = watched()
    intervals(story, 6, counts(10))
    assert (watch(story).held, watch(story).reason) == (120.0, WatchReason.FEW_REQUESTS)
    assert story.news["canary.held"]["new_requests"] == 60
    intervals(story, 1, counts(10))
    assert "canary.held" not in story.news
    assert watch(story).held == 120.0
    intervals(story, 5, counts(10))
    assert news_of_abort(story) == ("inconclusive", "120 requests at the new workers, 4800 at the old")
    assert (state(story), watch(story).verdict) == (RolloutState.ABORTED, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("gated", [True, False])
def test_it_falls_silent(gated: bool) -> None:
    """What is not heard at the end of its time is not passed by what it did before, be it judged or not."""
    story = watched(strategy=replace(ONE, gated=gated))
    intervals(story, 4, counts(100))
    for _ in range(2):
        report(story, OLD, counts(100))
        look(story)
    assert (state(story), watch(story).reason) == (RolloutState.WATCHING, WatchReason.SILENT)
    intervals(story, 1, counts(100))
    assert (state(story), watch(story).held) == (RolloutState.SHIFTING, 120.0)


def test_it_falls_silent_in_a_short_watch() -> None:
    """However long its workers may leave between two reports: that is as long as the watch."""
    story = watched(strategy=replace(ONE, canary_time=6.0))
    moving = story.fleet.plan
    assert moving is not None
    release = replace(moving.release, settings=WorkerSettings(report_interval=5.0))
    story.fleet = story.fleet.with_rollout(replace(moving, release=release))
    intervals(story, 3, counts(100))
    for _ in range(3):
        report(story, OLD, counts(100))
        look(story)
    assert (state(story), watch(story).reason) == (RolloutState.WATCHING, WatchReason.SILENT)


def test_it_answers_no_more() -> None:
    """Its heartbeats come, and no answer: a request that is never answered is in no count. It is held, and given up."""
    story = watched()
    intervals(story, 3, counts(100))
    intervals(story, 3, counts(0))
    assert (state(story), watch(story).reason) == (RolloutState.WATCHING, WatchReason.FEW_REQUESTS)
    assert (story.news["canary.held"]["old_requests"], story.news["canary.held"]["new_requests"]) == (1200, 0)
    intervals(story, 6, counts(0))
    assert news_of_abort(story) == ("inconclusive", "0 requests at the new workers, 3600 at the old")


def test_one_of_several_does_not_serve() -> None:
    """Nor is a canary passed that lacks a worker, though the others do well."""
    story = watched(strategy=BY_HALVES)
    intervals(story, 5, counts(100))
    take_over(story, *OLD, 5)
    intervals(story, 2, counts(200))
    assert (state(story), watch(story).reason) == (RolloutState.WATCHING, WatchReason.SILENT)


def test_enough_come_while_it_is_held() -> None:
    """It is passed then."""
    story = watched()
    intervals(story, 6, counts(10), counts(10))
    intervals(story, 2, counts(100))
    assert (state(story), watch(story).verdict) == (RolloutState.SHIFTING, Verdict.PASS)


@pytest.mark.parametrize(("new", "old"), [(40, 200), (300, 100)])
def test_it_gets_another_share_than_its_own(new: int, old: int) -> None:
    """Below half, or over double, of a fifth: what it does is not what it would do."""
    story = watched()
    intervals(story, 6, counts(new), counts(old))
    assert watch(story).reason is WatchReason.SHARE
    intervals(story, 6, counts(new), counts(old))
    assert news_of_abort(story)[0] == "inconclusive"
    assert "% of the requests" in str(news_of_abort(story)[1])


def test_a_suspicion_in_the_last_interval() -> None:
    """It is held until the next one says whether it was chance."""
    story = watched()
    intervals(story, 5, counts(100))
    intervals(story, 1, counts(100, slow=5))
    assert watch(story).reason is WatchReason.LATENCY
    intervals(story, 1, counts(100))
    assert watch(story).verdict is Verdict.PASS


def test_next_to_nothing_is_no_interval() -> None:
    """One with a few requests goes on into the next: together they say what neither does."""
    story = watched()
    intervals(story, 1, counts(20, errors=5))
    assert watch(story).suspected == ()
    intervals(story, 1, counts(20, errors=5))
    assert watch(story).suspected == (WatchReason.ERRORS,)


def test_a_watch_of_any_length_ends_in_time() -> None:
    """The last look is when the time is over, though no whole interval fits; none comes before its interval's end."""
    story = watched(strategy=replace(ONE, canary_time=2.5, canary_timeout=4.0))
    for _ in range(5):
        report(story, (*OLD, *NEW), counts(10))
        look(story)
    assert (story.now, state(story)) == (64.0, RolloutState.ABORTED)
    with pytest.raises(Refused, match="no canary is watched: it is not looked at any more"):
        look(story)


def test_a_look_before_its_time() -> None:
    """It is refused."""
    story = watched()
    story.timers = dict.fromkeys(story.timers, story.now)
    with pytest.raises(Refused, match="the canary of rollout 2 is not to be looked at now"):
        look(story)


def test_the_rest_is_started_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one round, which looks at all workers, and not in one for each: there may be a thousand."""
    asked: list[object] = []

    def counted(*words: Any) -> object:
        asked.append(step := next_step(*words))
        return step

    next_step = side_by_side.next_step
    monkeypatch.setattr(side_by_side, "next_step", counted)
    story = watched(40)
    asked.clear()
    story.tell(PromoteAsked("test"))
    assert len([order for order in story.orders if isinstance(order, Spawn)]) == 39
    assert len(asked) == 2


def test_a_canary_serves_for_old_ones_that_died() -> None:
    """With fewer wanted it has one too many, which serves on until as many as are wanted do without it."""
    story = watched(4, BY_HALVES)
    for serial in OLD:
        story.die(serial, age=100.0)
    story.tell(ScaleAsked(2))
    assert not any(isinstance(order, BeginDrain) for order in story.orders)
    story.ready(7)
    story.serve(7)
    assert drain(6, packet=64) in story.orders
