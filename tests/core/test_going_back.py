"""Rolling rollouts that are aborted in the middle: the old workers come back, one after another."""

from __future__ import annotations

from contextlib import suppress

import pytest

from stillup.core.commands import BeginAccept, Reexec, Spawn, TellAdoption, Terminate
from stillup.core.events import (
    AbortAsked,
    Configured,
    Exited,
    ReexecAsked,
    ReloadAsked,
    RollbackAsked,
    ScaleAsked,
    SpawnFailed,
    TimerFired,
    WorkerResumed,
)
from stillup.core.policy import Policy, TimerKind
from stillup.core.states import CALLED_OFF, SUPERSEDED, GenerationState, RolloutState, WorkerState
from stillup.core.values import replace
from stillup.errors import Refused
from tests.core.rolling_story import ONE_LESS, ONE_MORE, drain, going_back, rolling, shifting, state, take_over
from tests.core.story import NEW, OLD, Story, serving, spawn


def test_an_abort_in_mid_plan_takes_it_back() -> None:
    """It is settled at once; who boots is ended, and an old one is started in the place that it leaves."""
    story = going_back()
    assert story.orders == [Terminate(4), TellAdoption(1, on=True), TellAdoption(3, on=False)]
    assert (story.rollout(2).reason, story.rollout(2).ended) == (CALLED_OFF, None)
    assert "rollout.aborted" in story.news
    story.exit(4)
    assert story.orders == [spawn(5, 1, 2)]
    story.ready(5)
    story.now += 1
    story.serve(5)
    assert story.orders == [drain(3, 16)]
    assert story.news["rollout.went-back"] == {"rollout": 2, "generation": 2}
    assert (state(story), story.rollout(2).ended) == (RolloutState.ABORTED, story.now)
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.DRAINING}
    story.exit(3)
    assert story.generations() == {1: GenerationState.SERVING}


def test_a_worker_that_is_to_accept_drains() -> None:
    """It may hold connections by now."""
    story = shifting()
    story.ready(4)
    story.tell(AbortAsked("test"))
    assert story.orders[0] == drain(4)


def test_no_second_abort() -> None:
    """What goes back cannot be called off; the refusal says what happens."""
    story = going_back()
    with pytest.raises(Refused, match="rollout 2 goes back already: what served before it comes back") as refused:
        story.tell(AbortAsked("test"))
    assert refused.value.code == "out-of-order"


def test_a_second_reload_waits_for_the_way_back() -> None:
    """It supersedes the first, which goes back, and begins then."""
    story = shifting()
    story.reload()
    assert story.rollout(2).reason == SUPERSEDED
    assert (state(story, 2), state(story, 3)) == (RolloutState.GOING_BACK, RolloutState.WAITING)
    assert "rollout.waiting" in story.news
    story.exit(4)
    story.ready(5)
    story.serve(5)
    assert (state(story, 2), state(story, 3)) == (RolloutState.ABORTED, RolloutState.WAITING)
    story.exit(3)
    assert story.orders == [spawn(6, 3, 1, NEW)]
    with pytest.raises(Refused, match="gen 3 is before its cut-over"):
        story.tell(ScaleAsked(3))


def test_no_rollback_on_the_way_back() -> None:
    """What serves is about to change: the refusal says what comes back, and to ask again."""
    story = going_back()
    with pytest.raises(Refused, match="rollout 2 goes back: what served before it comes back; ask again") as refused:
        story.tell(RollbackAsked(OLD, "", "test"))
    assert refused.value.code == "rollout-in-progress"


def test_old_ones_that_do_not_come_back_are_tried_again() -> None:
    """With the back-off of any slot; meanwhile the new ones serve on."""
    story = going_back()
    story.exit(4)
    story.tell(SpawnFailed(5, "no memory"))
    assert story.orders == [spawn(6, 1, 2)]
    story.tell(SpawnFailed(6, "no memory"))
    assert story.orders == []
    assert story.news["worker.waits"] == {"worker": "1.2", "deaths": 2, "seconds": 1.5}
    story.fire(TimerKind.RESPAWN, 1, slot=2)
    assert story.orders == [spawn(7, 1, 2)]
    assert story.workers()[3] is WorkerState.SERVING
    story.ready(7)
    story.serve(7)
    assert state(story) is RolloutState.ABORTED


def test_a_new_one_that_dies_on_the_way_back() -> None:
    """It is noted and told, and not replaced."""
    story = going_back()
    story.exit(4)
    story.die(3, age=1.0)
    assert story.news["worker.died"]["worker"] == "2.1"
    assert [order for order in story.orders if isinstance(order, Spawn)] == []
    assert state(story) is RolloutState.GOING_BACK
    story.ready(5)
    story.serve(5)
    assert story.generations() == {1: GenerationState.SERVING}


def test_what_was_configured_is_taken_back() -> None:
    """As with any abort, the policy and the number of workers are what they were; a scaling since then stays."""
    story = serving(2, Policy(strategy=ONE_MORE))
    story.tell(ReloadAsked(NEW, "test", configured=Configured(Policy(strategy=ONE_MORE, grace=9.0), size=3)))
    story.ready(3)
    story.serve(3)
    story.tell(ScaleAsked(4))
    story.tell(AbortAsked("test"))
    assert (story.fleet.policy.grace, story.fleet.size) == (5.0, 4)


def no_way_back(story: Story, *serials: int) -> None:
    """The old release boots no more: so many of its workers, one after another, that each slot was tried twice."""
    story.tell(*(SpawnFailed(serial, "no memory") for serial in serials))


def test_a_way_back_without_an_end_is_given_up_for_a_reload() -> None:
    """As many of the old generation serve as of the new one: the old one stays as it is, and the reload begins."""
    story = shifting()
    story.reload()
    story.exit(4)
    no_way_back(story, 5)
    assert (state(story), state(story, 3)) == (RolloutState.GOING_BACK, RolloutState.WAITING)
    no_way_back(story, 6)
    assert story.news["rollout.gave-up"] == {
        "rollout": 2, "generation": 2, "serving": 1, "workers": 1, "of": 2
    }  # fmt: skip
    assert (state(story), story.rollout(2).reason, story.rollout(2).ended) == ("aborted", SUPERSEDED, story.now)
    assert story.generations()[1] is GenerationState.SERVING
    assert story.workers()[3] is WorkerState.DRAINING
    story.exit(3)
    assert state(story, 3) is RolloutState.BOOTING


@pytest.mark.parametrize("seconds", [1.0, 60.0])
def test_the_new_one_stays_where_more_of_it_serve(seconds: float) -> None:
    """Whether the old ones end at once or hang until their boot's deadline; what stays is replaced as any."""
    story = shifting()
    story.tell(AbortAsked("test"))
    story.tell(Exited(1, "exited 1"))
    story.exit(4)
    for _ in range(4):
        story.now += seconds
        for worker in [one for one in story.fleet.workers.values() if one.generation == 1]:
            story.tell(SpawnFailed(worker.serial, "no memory"))
    assert state(story) is RolloutState.GOING_BACK, "nothing waits for it"
    story.reload()
    assert story.news["rollout.gave-up"]["serving"] == 2
    assert story.generations()[2] is GenerationState.SERVING
    story.exit(*(worker.serial for worker in story.fleet.workers.values() if worker.generation == 1))
    assert (story.rollout(3).previous, state(story)) == (2, RolloutState.ABORTED)


def test_nothing_is_given_up_before_those_that_serve_have_come_back() -> None:
    """Who serves is not known before: a reload right after a take-over does not end the only one that does."""
    story = shifting()
    story.tell(AbortAsked("test"), Exited(1, "exited 1"))
    story.exit(4)
    for _ in range(4):
        story.now += 1.0
        story.tell(*(SpawnFailed(one.serial, "no memory") for one in story.fleet.of(1)))
    serve = [one.serial for one in story.fleet.workers.values() if one.state is WorkerState.SERVING]
    take_over(story, *story.fleet.workers)
    story.reload()
    assert {story.workers()[serial] for serial in serve} == {WorkerState.SERVING}
    assert state(story) is RolloutState.GOING_BACK
    story.tell(*(WorkerResumed(serial, draining=False) for serial in serve))
    assert story.news["rollout.gave-up"]["serving"] == 2
    assert story.generations()[2] is GenerationState.SERVING


def test_what_stays_is_of_the_size_that_is_wanted() -> None:
    """A reload to fewer workers was aborted, and its generation stays since no old one boots: so many are wanted."""
    story = serving(4, Policy(strategy=ONE_MORE))
    story.tell(ReloadAsked(NEW, "test", configured=Configured(Policy(strategy=ONE_MORE), size=2)))
    story.ready(5)
    story.serve(5)
    story.tell(*(Exited(serial, "exited 1") for serial in (1, 2, 3, 4)), AbortAsked("test"))
    for _ in range(4):
        story.now += 60.0
        story.exit(*(one.serial for one in story.fleet.workers.values() if one.state is WorkerState.STOPPING))
        story.tell(*(SpawnFailed(one.serial, "no memory") for one in story.fleet.of(1)))
        for timer in [timer for timer, at in story.timers.items() if at <= story.now]:
            with suppress(Refused):
                story.tell(TimerFired(timer))
    story.reload()
    assert story.news["rollout.gave-up"]["serving"] == 2
    assert (story.fleet.size, story.fleet.generations[2].size) == (4, 4)


def test_a_new_one_that_dies_where_no_old_one_boots_is_replaced() -> None:
    """Else what serves would become fewer and fewer; a slot whose workers die young waits as in any generation."""
    story = shifting()
    story.tell(AbortAsked("test"))
    story.exit(4)
    no_way_back(story, 5, 6)
    story.die(3, age=1.0)
    assert story.orders == [spawn(7, 2, 1, NEW)]
    story.ready(7)
    assert story.orders[0] == BeginAccept(7)
    story.serve(7)
    assert state(story) is RolloutState.GOING_BACK
    story.fire(TimerKind.RESPAWN, 1, slot=2)
    story.ready(8)
    story.serve(8)
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.DRAINING}


def test_fewer_workers_end_a_way_back_that_has_no_end() -> None:
    """Where the old release boots no more, as many as still serve are enough."""
    story = going_back()
    story.exit(4)
    no_way_back(story, 5, 6)
    story.tell(ScaleAsked(1))
    assert story.news["rollout.went-back"] == {"rollout": 2, "generation": 2}
    assert state(story) is RolloutState.ABORTED


def test_a_slot_that_is_not_wanted_any_more_does_not_wait() -> None:
    """Its worker could not be started, after fewer were wanted: that is no reason to start another."""
    story = rolling(3)
    story.ready(4)
    story.serve(4)
    story.exit(3)
    story.tell(AbortAsked("test"))
    story.exit(5)
    story.die(1, age=100.0)
    story.tell(ScaleAsked(1))
    story.tell(SpawnFailed(6, "no memory"))
    assert state(story) is RolloutState.GOING_BACK
    assert story.waiting() == {}


def test_fewer_workers_whatever_the_bounds_of_what_goes_back() -> None:
    """The strategy of a rollout that goes back is no reason to refuse a number of workers."""
    story = serving(2)
    story.tell(ReloadAsked(NEW, "test", strategy=ONE_LESS))
    story.exit(2)
    story.tell(SpawnFailed(3, "no memory"))
    story.tell(ScaleAsked(1))
    assert state(story) is RolloutState.ABORTED


def test_old_ones_that_do_not_come_back_are_no_deaths_in_their_probation() -> None:
    """What could not be started again when another release goes says nothing of how the old one served."""
    story = rolling(strategy=ONE_LESS)
    story.fleet = replace(story.fleet, policy=replace(story.fleet.policy, probation=3600.0))
    story.exit(2)
    story.tell(SpawnFailed(3, "no memory"), Exited(4, "exited 1"), Exited(5, "exited 1"))
    assert story.waiting() == {2: 2}
    assert story.rollout(1).deaths == 0


def test_no_worker_is_started_for_the_program_before() -> None:
    """A slot whose wait ends at the moment of a re-exec is filled by the next program."""
    story = going_back()
    story.exit(4)
    story.tell(SpawnFailed(5, "no memory"), SpawnFailed(6, "no memory"))
    story.now += 2.0
    story.tell(ReexecAsked())
    assert story.orders == [Reexec()]
