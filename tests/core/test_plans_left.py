"""What becomes of a rolling rollout at a stop, in the hands of another supervisor, or of another program."""

from __future__ import annotations

import pytest

from stillup.core.commands import Reexec, Spawn, TellAdoption, Terminate
from stillup.core.events import (
    Exited,
    HeartbeatsDue,
    HelloSaid,
    ReexecAsked,
    Reported,
    Spawned,
    StopAsked,
    WorkerResumed,
)
from stillup.core.states import LOST, GenerationState, RolloutState, ServiceState
from stillup.core.values import replace
from stillup.errors import Refused
from tests.core.rolling_story import drain, going_back, rolling, shifting, state, take_over
from tests.core.story import NEW, Story, spawn


@pytest.mark.parametrize("story", [rolling(), shifting(), going_back()], ids=["booting", "shifting", "going back"])
def test_a_stop_ends_every_plan(story: Story) -> None:
    """All leave for good, nobody is started any more, and the rollout has its end."""
    story.tell(StopAsked("test"))
    assert state(story) is RolloutState.ABORTED
    assert story.rollout(2).ended == story.now
    assert not any(isinstance(order, Spawn) for order in story.orders)
    story.exit(*story.fleet.workers)
    assert story.state() is ServiceState.STOPPED


def test_a_plan_goes_on_with_the_next_supervisor() -> None:
    """From what lives: who had not accepted leaves and is started anew, the dead are no failure of the release."""
    story = shifting()
    story.tell(Spawned(4, 104), HelloSaid(4))
    take_over(story, 1, 4)
    assert story.orders == [Terminate(4), spawn(5, 2, 1, NEW)]
    assert state(story) is RolloutState.SHIFTING
    story.exit(4)
    assert story.orders == [spawn(6, 2, 2, NEW)]
    story.ready(5)
    story.serve(5)
    assert story.orders == [TellAdoption(1, on=False)]
    story.ready(6)
    story.serve(6)
    assert state(story) is RolloutState.DRAINING


def test_nobody_leaves_before_the_others_have_come_back() -> None:
    """What serves by the record may drain by now: the plan takes no step on that."""
    story = rolling(3)
    story.ready(4)
    take_over(story, 1, 2, 3, 4)
    story.tell(WorkerResumed(4, draining=False))
    assert story.orders == [TellAdoption(1, on=False), TellAdoption(2, on=False), TellAdoption(3, on=False)]
    story.tell(WorkerResumed(1, draining=False), WorkerResumed(2, draining=False))
    assert story.orders == [TellAdoption(1, on=False), TellAdoption(2, on=False)]
    story.tell(WorkerResumed(3, draining=False))
    assert story.orders == [TellAdoption(3, on=False), drain(3)]


def test_one_that_never_comes_back_holds_nothing_up_where_nobody_hangs() -> None:
    """With --hang-timeout 0 nobody would ever find that it is silent: it counts as one that serves, as any."""
    story = rolling(2)
    story.fleet = replace(story.fleet, policy=replace(story.fleet.policy, hang_timeout=None))
    story.ready(3)
    take_over(story, 1, 2, 3)
    story.tell(WorkerResumed(3, draining=False))
    assert story.orders == [TellAdoption(1, on=False), TellAdoption(2, on=False), drain(2)]


def test_who_comes_back_is_told_not_to_read_the_queue() -> None:
    """It has read it since it lost its supervisor."""
    story = shifting()
    take_over(story, 1, 3)
    story.tell(WorkerResumed(3, draining=False))
    assert story.orders == [TellAdoption(1, on=False)]
    story.tell(WorkerResumed(1, draining=False))
    assert story.orders == [TellAdoption(1, on=False)]


def test_the_way_back_goes_on_with_the_next_supervisor() -> None:
    """As soon as those that serve have come back."""
    story = going_back()
    story.exit(4)
    take_over(story, 1, 3)
    assert story.orders == [spawn(6, 1, 2)]
    story.ready(6)
    story.serve(6)
    assert state(story) is RolloutState.GOING_BACK
    story.tell(WorkerResumed(1, draining=False))
    assert state(story) is RolloutState.ABORTED
    assert drain(3, 16) in story.orders


def test_one_that_only_boots_is_lost_with_its_supervisor() -> None:
    """What boots may be what killed it, and no client has noticed it yet."""
    story = rolling()
    story.tell(Spawned(3, 103))
    take_over(story, 1, 2, 3)
    assert story.rollout(2).reason == LOST
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.STOPPING}


def test_the_program_is_replaced_in_mid_plan() -> None:
    """Not while a worker is being started; while an old one drains it is."""
    story = rolling()
    story.ready(3)
    story.serve(3)
    story.tell(ReexecAsked())
    assert story.orders == [Reexec()]
    story.exit(1)
    with pytest.raises(Refused, match=r"worker 2\.2 is being started"):
        story.tell(ReexecAsked())


def test_a_worker_that_drained_as_an_orphan_is_replaced() -> None:
    """It says so when it comes back; its end is expected."""
    story = shifting()
    story.ready(4)
    take_over(story, 1, 3, 4)
    story.tell(WorkerResumed(3, draining=True))
    story.tell(WorkerResumed(4, draining=False))
    story.exit(3)
    assert story.orders == [spawn(5, 2, 1, NEW)]
    assert state(story) is RolloutState.SHIFTING


def test_one_whose_replacement_serves_leaves_within_the_bounds() -> None:
    """A worker hung, is being replaced, and was heard again: it leaves once as many serve without it."""
    story = shifting()
    story.ready(4)
    story.tell(HeartbeatsDue(story.now))
    story.now += 61
    story.tell(Reported(1), HeartbeatsDue(story.now))
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.orders == [spawn(5, 2, 1, NEW)]
    story.tell(Reported(3))
    story.ready(5)
    story.serve(5)
    assert story.orders[-1:] != [drain(3)]
    story.serve(4)
    assert drain(3, 16) in story.orders or drain(3) in story.orders
    assert state(story) is RolloutState.DONE
