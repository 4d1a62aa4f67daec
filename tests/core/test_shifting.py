"""Rolling rollouts, told as stories: new workers take the places of the old ones, one after another."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain, Kill, Spawn, TellAdoption, Terminate
from stillup.core.crossing import Crossed
from stillup.core.events import (
    AbortAsked,
    ChannelLost,
    Configured,
    Exited,
    HeartbeatsDue,
    ReloadAsked,
    Reported,
    ScaleAsked,
    SpawnFailed,
    WorkerBootFailed,
)
from stillup.core.policy import Policy, TimerKind
from stillup.core.states import GenerationState, RolloutState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import Refused
from tests.core.rolling_story import ONE_LESS, ONE_MORE, drain, going_back, rolling, shifting, state
from tests.core.story import NEW, OLD, Story, serving, spawn

# The way there


def test_a_worker_more_at_a_time() -> None:
    """With room for one more: one boots, accepts and serves; then an old one leaves, and when it has the next boots."""
    story = serving(2, Policy(strategy=ONE_MORE))
    story.now = 100.0
    story.reload(replace(NEW, settings=WorkerSettings(health_path="/")))
    assert [type(order) for order in story.orders] == [Spawn]
    assert state(story) is RolloutState.BOOTING
    story.now = 101.0
    story.ready(3)
    assert story.orders == [BeginAccept(3)]
    assert (state(story), story.rollout(2).ready, story.rollout(2).probe) == (RolloutState.SHIFTING, 101.0, "/ 200")
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.SHIFTING}
    story.serve(3)
    assert story.orders == [TellAdoption(1, on=False), TellAdoption(2, on=False), drain(2)]
    assert story.news["rollout.step"] == {"rollout": 2, "generation": 2, "old": 1, "new": 1, "of": 2}
    story.exit(2)
    assert [type(order) for order in story.orders] == [Spawn]
    story.now = 102.0
    story.ready(4)
    assert story.rollout(2).ready == 101.0
    story.serve(4)
    assert story.orders == [drain(1, 16)]
    assert story.news["rollout.cut-over"] == {"rollout": 2, "generation": 2, "previous": 1}
    assert "rollout.step" not in story.news
    assert (state(story), story.rollout(2).cut) == (RolloutState.DRAINING, 102.0)
    story.exit(1)
    assert state(story) is RolloutState.DONE
    assert story.generations() == {2: GenerationState.SERVING}


def test_a_worker_less_at_a_time() -> None:
    """With room for none: an old one drains and has left before its replacement boots, from the first step on."""
    story = rolling(strategy=ONE_LESS)
    assert story.orders == [drain(2)]
    assert state(story) is RolloutState.SHIFTING
    assert story.news["rollout.step"] == {"rollout": 2, "generation": 2, "old": 1, "new": 0, "of": 2}
    story.exit(2)
    assert story.orders == [spawn(3, 2, 1, NEW)]
    story.ready(3)
    story.serve(3)
    assert story.orders == [TellAdoption(1, on=False), drain(1)]
    story.exit(1)
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.SHIFTING}
    story.ready(4)
    story.serve(4)
    assert state(story) is RolloutState.DONE
    assert story.generations() == {2: GenerationState.SERVING}


def test_a_first_generation_comes_at_once() -> None:
    """Where nothing serves there is nothing to replace: all its workers boot, and it is no rolling rollout."""
    story = Story(2, Policy(strategy=ONE_MORE))
    story.reload(OLD)
    assert story.orders == [spawn(1, 1, 1), spawn(2, 1, 2)]
    assert story.rollout(1).strategy == Strategy()


def test_one_reload_may_come_otherwise() -> None:
    """What is said for one reload is for that one; the next is as configured."""
    story = serving(2)
    story.tell(ReloadAsked(NEW, "test", strategy=ONE_MORE))
    assert story.orders == [spawn(3, 2, 1, NEW)]
    story.reload()
    assert story.rollout(3).strategy == Strategy()
    assert story.orders == [Terminate(3), spawn(4, 3, 1, NEW), spawn(5, 3, 2, NEW)]


@pytest.mark.parametrize("configured", [False, True])
def test_what_cannot_be_is_refused(configured: bool) -> None:
    """Be it said for one reload, or configured: nothing is begun, and what is under way goes on."""
    story = rolling()
    wanted = Configured(Policy(strategy=replace(ONE_LESS, max_unavailable=2))) if configured else None
    none = Strategy(StrategyKind.ROLLING, 0, 0) if not configured else None
    with pytest.raises(Refused, match="max-surge 0") as refused:
        story.tell(ReloadAsked(NEW, "test", configured=wanted, strategy=none))
    assert refused.value.code == "usage"
    assert state(story) is RolloutState.BOOTING


def test_what_drains_leaves_no_room() -> None:
    """A rolling reload waits while workers of an older generation are there whose places it needs, and hurries them."""
    story = serving(2)
    story.reload()
    story.ready(3, 4)
    story.serve(3, 4)
    story.tell(ReloadAsked(OLD, "test", strategy=ONE_MORE))
    assert list(story.news) == ["rollout.waiting"]
    assert [type(order).__name__ for order in story.orders] == ["HurryDrain", "HurryDrain"]
    story.exit(1)
    assert state(story, 3) is RolloutState.WAITING
    story.exit(2)
    assert story.orders == [spawn(5, 3, 1)]


def test_workers_that_serve_nobody_make_room() -> None:
    """Where one hangs and the other boots there is no room within max-surge 0: the one that boots leaves."""
    story = serving(2, Policy(strategy=ONE_LESS))
    story.now += 70
    story.tell(HeartbeatsDue(story.now - 70))
    story.tell(Reported(2))
    story.now += 61
    story.tell(Reported(2), HeartbeatsDue(story.now))
    story.reload()
    assert Kill(1) in story.orders


# What dies


def test_an_old_one_that_dies_makes_room() -> None:
    """Once a new one serves it is not replaced by an old one; but no other leaves until as many serve again."""
    story = rolling(3)
    story.ready(4)
    story.serve(4)
    story.exit(3)
    story.die(1, age=100.0)
    assert story.orders == [spawn(6, 2, 3, NEW)]
    story.ready(5, 6)
    story.serve(5)
    assert story.orders == []
    story.serve(6)
    assert drain(2, 16) in story.orders


@pytest.mark.parametrize("size", [1, 2])
def test_an_old_one_that_dies_before_a_new_one_serves_is_replaced(size: int) -> None:
    """By its like: whether the new release will ever serve is not known yet. Its back-off is that of any slot."""
    story = rolling(size)
    story.die(1, age=100.0)
    replacement = size + 2
    assert story.orders == [spawn(replacement, 1, 1)]
    story.die(replacement, age=1.0)
    room = size - 1
    assert story.orders == [spawn(replacement + 1, 2, 2, NEW)] * room
    assert story.waiting() == {1: 2}
    story.fire(TimerKind.RESPAWN, 1, slot=1)
    assert story.orders == [spawn(replacement + 1, 1, 1)] * (1 - room), "within N + K, and later if that is full"
    story.tell(AbortAsked("test"))
    assert story.waiting() == {}
    assert sum(worker.generation == 1 for worker in story.fleet.workers.values()) == size


def test_who_came_back_for_one_that_died_gives_way() -> None:
    """With one less at a time: the old one is restored beside the first new one, and leaves once that serves."""
    story = rolling(strategy=ONE_LESS)
    story.exit(2)
    story.die(1, age=100.0)
    assert story.orders == [spawn(4, 1, 1)]
    story.ready(3)
    story.serve(3)
    assert story.orders == [Terminate(4)]
    story.exit(4)
    assert story.orders == [spawn(5, 2, 2, NEW)]


def test_a_crash_on_the_way_out_is_told() -> None:
    """An old worker that crashes while it drains costs what it held, whether or not the plan is over."""
    story = rolling()
    story.ready(3)
    story.serve(3)
    story.tell(Exited(2, "killed by SIGSEGV"))
    assert story.news["worker.lost"]["worker"] == "1.2"
    assert [death.worker for death in story.fleet.deaths] == ["1.2"]


def test_what_crossed_is_kept_where_none_is_left_at_the_cut_over() -> None:
    """The figures of an old generation that has left altogether are those of the rollout that replaced it."""
    story = rolling(strategy=ONE_LESS)
    story.tell(Reported(2, WorkerFigures(crossed=Crossed(7))), Exited(2, "exited 0"))
    story.ready(3)
    story.serve(3)
    story.tell(Reported(1, WorkerFigures(crossed=Crossed(5))), Exited(1, "exited 0"))
    story.ready(4)
    story.serve(4)
    assert story.rollout(2).crossed.given == 12


@pytest.mark.parametrize("served", [True, False])
def test_a_new_one_that_dies_sends_it_back(served: bool) -> None:
    """Whether it served or booted: the old ones come back first, and then the new ones leave."""
    story = shifting()
    if served:
        story.die(3, age=1.0)
        assert story.news["worker.died"]["worker"] == "2.1"
        assert story.orders == [Terminate(4), TellAdoption(1, on=True), spawn(5, 1, 2)]
    else:
        story.tell(WorkerBootFailed(4, "import", "no"), Exited(4, "exited 1", "tail"))
        assert "worker.died" not in story.news
        assert story.orders[-1] == spawn(5, 1, 2)
    rollout = story.rollout(2)
    assert (rollout.state, rollout.reason) == (RolloutState.GOING_BACK, "exit" if served else "import")
    assert rollout.ended is None
    assert rollout.failure is not None
    assert story.news["rollout.aborted"]["reason"] == rollout.reason


def test_a_boot_that_fails_first_costs_nothing() -> None:
    """Before a step that a client may notice it is aborted like any; a slot of the old that was empty is filled."""
    story = rolling()
    story.die(1, age=100.0)
    story.die(4, age=1.0)
    assert story.orders == [spawn(5, 2, 2, NEW)]
    story.tell(SpawnFailed(3, "no memory"))
    assert story.orders == [Terminate(5)]
    assert (state(story), story.rollout(2).ended) == (RolloutState.ABORTED, story.now)
    story.fire(TimerKind.RESPAWN, 1, slot=1)
    assert story.orders == [spawn(6, 1, 1)]


def test_one_that_is_cut_off_sends_it_back_by_its_exit() -> None:
    """A new worker that broke the protocol drains, and has failed."""
    story = shifting()
    story.tell(ChannelLost(3, "garbage"))
    story.exit(3)
    assert state(story) is RolloutState.GOING_BACK


def test_old_slots_that_wait_do_not_come_in_between() -> None:
    """The back-off of a slot ends in mid-plan: nothing is started for it, and when the plan is off it is."""
    story = serving(2, Policy(strategy=ONE_MORE))
    story.die(1, age=1.0)
    story.die(3, age=1.0)
    assert story.waiting() == {1: 2}
    story.reload()
    assert story.orders == [spawn(4, 2, 1, NEW), spawn(5, 2, 2, NEW)]
    story.fire(TimerKind.RESPAWN, 1, slot=1)
    assert story.orders == []
    story.tell(AbortAsked("test"))
    assert story.orders == [Terminate(4), Terminate(5), spawn(6, 1, 1)]
    assert story.fleet.workers[6].deaths == 2


def test_old_slots_wait_on_after_the_plan() -> None:
    """One whose time has not come when the plan is off is filled at its time."""
    story = serving(2, Policy(strategy=ONE_MORE))
    story.die(1, age=1.0)
    story.die(3, age=1.0)
    story.reload()
    story.tell(AbortAsked("test"))
    assert story.orders == [Terminate(4), Terminate(5)]
    story.fire(TimerKind.RESPAWN, 1, slot=1)
    assert story.orders == [spawn(6, 1, 1)]


def test_a_new_one_that_hangs_is_replaced() -> None:
    """It counts as one that does not serve: an old one stays for it, another is started in its slot."""
    story = shifting()
    story.ready(4)
    story.tell(HeartbeatsDue(story.now))
    story.now += 61
    story.tell(Reported(1), HeartbeatsDue(story.now))
    assert story.news["worker.hung"]["worker"] == "2.1"
    assert story.orders[-1] == TellAdoption(1, on=True)
    story.serve(4)
    assert story.orders == [TellAdoption(1, on=False), Kill(3)]
    story.tell(Exited(3, "killed by SIGKILL"))
    assert story.orders == [spawn(5, 2, 1, NEW)]
    assert state(story) is RolloutState.SHIFTING
    assert story.fleet.deaths[-1].worker == "2.1"


def test_a_crash_in_mid_plan_is_not_rolled_back() -> None:
    """Its own rollout's probation ends with the next one's begin: workers that die are replaced by that one's."""
    story = shifting()
    story.ready(4)
    story.serve(4)
    story.exit(1)
    story.tell(ReloadAsked(OLD, "test"))
    for serial in (3, 4):
        story.tell(Exited(serial, "exited 1"))
    assert (state(story, 2), state(story, 3)) == (RolloutState.DONE, RolloutState.BOOTING)


# Another number of workers


def test_a_plan_goes_on_with_another_number() -> None:
    """More are started, or some leave that are not wanted any more; the request is settled when the plan is over."""
    story = shifting()
    story.tell(ScaleAsked(3))
    assert story.orders == [spawn(5, 2, 3, NEW)]
    story.ready(4, 5)
    story.serve(4)
    assert drain(1) not in story.orders
    story.serve(5)
    assert story.news["scaling.done"] == {"scaling": 1, "workers": 3}
    assert state(story) is RolloutState.DRAINING


def test_a_plan_goes_on_with_fewer() -> None:
    """The old one leaves, and then who boots for a slot that is not wanted: one serves, as was wanted."""
    story = shifting()
    story.tell(ScaleAsked(1))
    assert story.news["rollout.cut-over"]["generation"] == 2
    assert Terminate(4) in story.orders
    assert drain(1) in story.orders
    assert story.news["scaling.done"] == {"scaling": 1, "workers": 1}


@pytest.mark.parametrize("strategy", [ONE_MORE, ONE_LESS])
def test_fewer_workers_by_a_reload(strategy: Strategy) -> None:
    """No more leave before a new one has booted than with as many: the release might be a bad one."""
    story = serving(4, Policy(strategy=strategy))
    story.tell(ReloadAsked(NEW, "test", configured=Configured(Policy(strategy=strategy), size=2)))
    if strategy is ONE_LESS:
        assert story.orders == [drain(4, 16)]
        story.exit(4)
    assert story.orders == [spawn(5, 2, 1, NEW)]
    story.ready(5)
    assert [type(order) for order in story.orders] == [BeginAccept, BeginDrain, BeginDrain]
    story.serve(5)
    assert isinstance(story.orders[-1], BeginDrain)


@pytest.mark.parametrize("back", [False, True])
def test_a_number_that_the_bounds_do_not_allow(back: bool) -> None:
    """The plan's own bounds count, and those that come back into force if it is called off."""
    story = serving(2, Policy(strategy=ONE_LESS))
    story.tell(
        ReloadAsked(NEW, "test", configured=Configured(Policy(strategy=ONE_MORE)), strategy=ONE_MORE if back else None)
    )
    story.ready(3)
    with pytest.raises(Refused, match="--max-unavailable 1 leaves none of 1 to serve"):
        story.tell(ScaleAsked(1))


def test_a_scaling_on_the_way_back() -> None:
    """As many of the old generation come back; a slot that waits beyond that does not any more."""
    story = going_back()
    story.exit(4)
    story.tell(SpawnFailed(5, "no memory"), SpawnFailed(6, "no memory"))
    assert story.waiting() == {2: 2}
    story.tell(ScaleAsked(3))
    assert story.orders == [spawn(7, 1, 3)]
    story.tell(SpawnFailed(7, "no memory"))
    assert story.news["scaling.aborted"]["reason"] == "spawn"
