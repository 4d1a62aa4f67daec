"""Few workers boot at once, and whose turn is next."""

from __future__ import annotations

import pytest

from stillup.core.commands import Spawn, Terminate
from stillup.core.events import (
    AbortAsked,
    ChannelLost,
    Exited,
    HelloSaid,
    PromoteAsked,
    Reported,
    ScaleAsked,
    Spawned,
    StopAsked,
)
from stillup.core.fleet_changes import NO_CHANGES
from stillup.core.fleet_comparison import changes_between
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import RolloutState, ServiceState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.errors import Refused
from tests.core.canary_story import ONE as WATCHED
from tests.core.canary_story import watched
from tests.core.story import NEW, OLD, Story, begin, serving, spawn

ONE = Policy(boot_concurrency=1)
TWO = Policy(boot_concurrency=2)


def started(story: Story) -> list[int]:
    """Who was started by the last events."""
    return [order.serial for order in story.orders if isinstance(order, Spawn)]


def test_a_start_of_many() -> None:
    """As many boot as may; the next does when one of them is READY, and all accept when the last is."""
    story = begin(4, TWO)
    assert started(story) == [1, 2]
    assert list(story.workers().values())[2:] == [WorkerState.QUEUED] * 2
    story.ready(2)
    assert started(story) == [3]
    story.ready(1)
    assert started(story) == [4]
    story.ready(3, 4)
    story.serve(1, 2, 3, 4)
    assert story.state() is ServiceState.SERVING


def test_the_deadline_begins_with_the_start() -> None:
    """Who is queued for a minute and a half has all of its time to boot then, and is as old as its process."""
    story = begin(2, ONE)
    assert Timer(TimerKind.BOOT, 2) not in story.timers
    story.now = 50.0
    story.ready(1)
    assert story.timers[Timer(TimerKind.BOOT, 2)] == 110.0
    assert story.fleet.workers[2].spawned == 50.0


def test_one_that_fails_makes_room_for_none_of_its_rollout() -> None:
    """The rest of a rollout whose first worker fails is never started."""
    story = serving(3, ONE)
    story.reload()
    story.tell(Spawned(4, 104), Exited(4, "exited 1", "no"))
    assert story.rollout(2).state is RolloutState.ABORTED
    assert started(story) == []
    assert set(story.workers()) == {1, 2, 3}
    assert set(story.generations()) == {1}


def test_what_serves_comes_before_what_is_new() -> None:
    """A slot of the generation that serves is filled before more of the next one boot; a rollback is before both."""
    story = serving(2, ONE)
    story.reload()
    assert started(story) == [3]
    story.die(2, age=90.0)
    assert started(story) == []
    story.ready(3)
    assert story.orders == [spawn(5, 1, 2)]
    story.ready(5)
    assert story.orders[-1] == spawn(4, 2, 2, NEW)


def test_a_rollback_comes_first() -> None:
    """What crashes is replaced by its like only when all workers of the release before have booted."""
    story = serving(2, ONE)
    story.reload()
    story.ready(3, 4)
    story.serve(3, 4)
    story.exit(1, 2)
    story.now += 1.0
    story.tell(Exited(3, "killed by SIGSEGV"))
    assert story.orders == [spawn(5, 2, 1, NEW)]
    story.ready(5)
    story.serve(5)
    story.now += 1.0
    story.tell(Exited(4, "killed by SIGSEGV"))
    assert story.fleet.pending is not None
    assert story.fleet.pending.rolls_back == 2
    assert story.orders == [spawn(7, 3, 1, OLD)]
    story.ready(7)
    assert story.orders == [spawn(8, 3, 2, OLD)]
    story.ready(8)
    assert spawn(6, 2, 2, NEW) in story.orders


def test_nobody_serves() -> None:
    """The last worker's replacement does not wait for a new release that may hang in its boot; further ones do."""
    story = serving(2, ONE)
    story.reload()
    story.tell(Exited(1, "killed"))
    assert started(story) == []
    story.tell(Exited(2, "killed"))
    assert started(story) == [5]
    story.ready(5)
    assert started(story) == [], "one of the new release boots, and one is all that may"
    story.ready(3)
    assert started(story) == [6]


def test_nobody_serves_and_a_rollback_waits() -> None:
    """The places are taken by what crashes, and hangs in its boot now: the first of the rollback needs none."""
    story = serving(2, ONE)
    story.reload()
    story.ready(3, 4)
    story.serve(3, 4)
    story.exit(1, 2)
    story.die(3, age=1.0)
    assert started(story) == [5]
    story.die(4, age=2.0)
    assert story.orders == [spawn(7, 3, 1, OLD)]
    story.ready(7)
    assert story.orders == [spawn(8, 3, 2, OLD)]


def test_a_scaling_is_queued_and_may_be_taken_back() -> None:
    """Who was queued and is not wanted any more is gone at once: there is no process to be ended, and no death."""
    story = serving(1, ONE)
    story.tell(ScaleAsked(4))
    before = story.fleet
    assert started(story) == [2]
    story.tell(ScaleAsked(2))
    assert story.orders == []
    assert set(story.workers()) == {1, 2}
    assert changes_between(before, story.fleet) == NO_CHANGES


def test_a_respawn_counts_when_it_is_started() -> None:
    """The metric of workers that were started for others has those that are queued when they have their process."""
    story = serving(2, ONE)
    story.tell(ScaleAsked(3))
    before = story.fleet
    story.tell(Exited(1, "killed"))
    assert changes_between(before, story.fleet).respawns == 0
    before = story.fleet
    story.ready(3)
    assert changes_between(before, story.fleet).respawns == 1


def test_a_rolling_rollout() -> None:
    """Its surge is more than may boot: they boot one after another."""
    policy = replace(ONE, strategy=Strategy(StrategyKind.ROLLING, max_surge=3))
    story = serving(3, policy)
    story.reload()
    assert started(story) == [4]
    story.tell(Spawned(4, 104), HelloSaid(4))
    assert started(story) == []
    story.tell(AbortAsked("test"))
    assert story.orders == [Terminate(4)]
    assert set(story.workers()) == {1, 2, 3, 4}


def test_a_scaling_is_taken_back_in_a_rolling_rollout() -> None:
    """Who is queued and not wanted any more is gone, and never started over what the plan allows."""
    story = serving(2, replace(ONE, strategy=Strategy(StrategyKind.ROLLING, 1)))
    story.reload()
    story.ready(3)
    story.serve(3)
    story.tell(ScaleAsked(5))
    assert started(story) == [4]
    assert [story.fleet.workers[serial].state for serial in (5, 6)] == [WorkerState.QUEUED] * 2
    story.tell(ScaleAsked(2))
    assert set(story.workers()) == {1, 2, 3, 4}
    story.ready(4)
    assert started(story) == []


def test_a_stop() -> None:
    """What was queued is not started any more, and nothing of it is waited for."""
    story = begin(3, ONE)
    story.tell(StopAsked("test"))
    assert set(story.workers()) == {1}
    story.tell(Exited(1, "exited 0"))
    assert story.state() is ServiceState.STOPPED


def test_a_take_over() -> None:
    """The queue of what serves outlives its supervisor, and is no death; that of a rollout ends with it."""
    story = serving(1, ONE)
    story.tell(ScaleAsked(4))
    story.take_over(1, 2)
    assert story.news["service.taken-over"] == {"generation": 1, "workers": 2, "died": 0}
    assert story.fleet.deaths == ()
    assert started(story) == [3], "who was booting leaves, as without a queue"
    assert story.workers()[4] is WorkerState.QUEUED
    story = serving(2, ONE)
    story.reload()
    story.take_over(1, 2)
    assert set(story.workers()) == {1, 2}


def test_more_or_fewer_places() -> None:
    """A reload that brings another number holds from then on; who boots already is let be."""
    story = serving(4, Policy(boot_concurrency=3))
    story.fleet = replace(story.fleet, policy=ONE)
    story.reload()
    assert started(story) == [5]
    story.fleet = replace(story.fleet, policy=Policy())
    story.tell(Reported(1))
    assert started(story) == [6, 7, 8]


@pytest.mark.parametrize("said", [Spawned(2, 7), Reported(2), HelloSaid(2), Exited(2, "exited 1")])
def test_nothing_is_heard_of_who_is_queued(said: Spawned | Reported | HelloSaid | Exited) -> None:
    """There is no process that could say or do anything."""
    story = begin(2, ONE)
    with pytest.raises(Refused):
        story.tell(said)


def test_less_room_than_when_it_was_queued() -> None:
    """A canary that is passed goes on within narrower bounds: what waits for its start by then is not started."""
    story = watched(3, replace(WATCHED, max_surge=0, max_unavailable=1, rolls=True))
    story.fleet = replace(story.fleet, policy=replace(story.fleet.policy, boot_concurrency=1))
    story.tell(ChannelLost(1, "garbage"))
    story.die(2, age=900.0)
    story.die(3, age=900.0)
    assert (story.workers()[5], story.workers()[6]) == (WorkerState.SPAWNED, WorkerState.QUEUED)
    story.tell(PromoteAsked("test"))
    assert set(story.workers()) == {1, 4, 5}


def test_less_room_for_who_comes() -> None:
    """A rolling rollout to fewer workers does not start one for which there is no room; its slot is filled later."""
    story = serving(4, Policy(boot_concurrency=1, strategy=Strategy(StrategyKind.ROLLING, 3)))
    story.reload()
    story.ready(5)
    assert (story.workers()[6], story.workers()[7]) == (WorkerState.SPAWNED, WorkerState.QUEUED)
    story.tell(ScaleAsked(3))
    assert set(story.workers()) == {1, 2, 3, 4, 5, 6}
    story.exit(4)
    assert set(story.workers()) == {1, 2, 3, 5, 6, 8}


def test_less_room_beside_a_canary() -> None:
    """Who waits for its start when fewer are wanted is not started over those that still live."""
    story = watched(4, replace(WATCHED, canary=50, canary_percent=True))
    story.fleet = replace(story.fleet, policy=replace(story.fleet.policy, boot_concurrency=1))
    story.die(1, age=900.0)
    story.die(2, age=900.0)
    assert (story.workers()[7], story.workers()[8]) == (WorkerState.SPAWNED, WorkerState.QUEUED)
    story.tell(ScaleAsked(3))
    assert set(story.workers()) == {3, 4, 5, 6, 7}
