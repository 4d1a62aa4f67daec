"""What another supervisor makes of a rollout that was under way when its supervisor ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stillup.core.commands import BeginDrain, Exit, Terminate
from stillup.core.events import Spawned, WorkerResumed
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import LOST, GenerationState, RolloutState, ServiceState, WorkerState
from stillup.core.values import replace
from tests.core.story import BESIDE, OLD, Story, begin, cutting_over, serving, spawn


def test_a_rollout_that_boots_is_aborted() -> None:
    """Workers that had not accepted leave, the rollout is aborted for that, and the old generation serves on."""
    story = serving(1)
    story.reload()
    story.tell(Spawned(2, 102))
    story.take_over(1, 2)
    assert story.orders == [Terminate(2)]
    assert story.timers == {Timer(TimerKind.TERM, 2): 65.0}
    assert story.news["rollout.aborted"]["reason"] == LOST
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.STOPPING}
    story.exit(2)
    assert story.generations() == {1: GenerationState.SERVING}
    assert "worker.died" not in story.news


@pytest.mark.parametrize("boot", [begin, cutting_over])
def test_a_first_release_is_no_failure_of_its_own(boot: Callable[[int], Story]) -> None:
    """A rollout of which no worker is left was lost with its supervisor, and the service does not stop."""
    story = boot(1)
    story.take_over()
    assert story.rollout(story.fleet.last_rollout).reason == LOST
    assert story.state() is not ServiceState.STOPPING
    assert Exit(1) not in story.orders


def test_a_first_release_that_was_to_accept() -> None:
    """The same when its workers were told to accept, and one of two is dead: the other one drains."""
    story = begin(2)
    story.ready(1, 2)
    story.take_over(2)
    assert story.rollout(1).reason == LOST
    assert BeginDrain(2, BESIDE, final=False, packet=64) in story.orders
    assert story.state() is ServiceState.STARTING
    story.exit(2)
    assert story.generations() == {}
    assert story.state() is ServiceState.STARTING


def test_a_cut_over_goes_on() -> None:
    """Workers that were told to accept, and did, come back serving: that is the cut-over, and the old ones drain."""
    story = cutting_over(2)
    story.take_over(1, 2, 3, 4)
    assert (story.orders, set(story.timers)) == ([], {Timer(TimerKind.ADMIT, 3), Timer(TimerKind.ADMIT, 4)})
    story.tell(WorkerResumed(3, draining=False))
    assert (story.orders, story.workers()[3]) == ([], WorkerState.SERVING)
    story.tell(WorkerResumed(4, draining=False))
    assert story.orders == [BeginDrain(n, BESIDE, final=False, packet=16) for n in (1, 2)]
    assert story.rollout(2).state is RolloutState.DRAINING
    assert story.news["rollout.cut-over"] == {"rollout": 2, "generation": 2, "previous": 1}


def test_a_cut_over_that_was_not_heard_of() -> None:
    """A worker that did not hear that it may accept leaves; its exit aborts the rollout, and the others drain."""
    story = cutting_over(2)
    story.take_over(1, 2, 3, 4)
    story.tell(WorkerResumed(3, draining=False))
    story.exit(4)
    assert story.rollout(2).state is RolloutState.ABORTED
    assert story.orders == [BeginDrain(3, BESIDE, final=False, packet=16)]
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.DRAINING}


def test_a_cut_over_without_all() -> None:
    """A cut-over of which one worker is dead is aborted at once: its workers that serve drain, for the old ones."""
    story = cutting_over(2)
    story.serve(3)
    story.take_over(1, 2, 3)
    assert story.rollout(2).reason == LOST
    assert BeginDrain(3, BESIDE, final=False, packet=16) in story.orders
    story.tell(WorkerResumed(3, draining=False))
    assert story.orders == [BeginDrain(3, BESIDE, final=False, packet=16)], "it could not be told before"


def test_a_cut_over_of_workers_that_drain() -> None:
    """A worker that was to accept, and drains when it comes back, is ended: its rollout fails by its exit."""
    story = cutting_over(1)
    story.take_over(1, 2)
    story.tell(WorkerResumed(2, draining=True))
    assert Terminate(2) in story.orders
    story.exit(2)
    assert story.rollout(2).state is RolloutState.ABORTED
    assert story.news["rollout.aborted"]["reason"] == "accept"
    assert story.generations() == {1: GenerationState.SERVING}


def test_a_rollout_that_waits_goes_on_waiting() -> None:
    """A rollout that had not begun begins when there is room: now, if the operator has allowed for more."""
    story = serving(1, Policy(max_draining=1))
    story.reload()
    story.ready(2)
    story.serve(2)
    story.reload(OLD)
    assert story.rollout(3).state is RolloutState.WAITING
    story.take_over(1, 2)
    assert story.rollout(3).state is RolloutState.WAITING
    story.fleet = replace(story.fleet, policy=Policy(max_draining=2))
    story.take_over(1, 2)
    assert story.orders == [spawn(3, 3, 1)]
    assert story.rollout(3).state is RolloutState.BOOTING
