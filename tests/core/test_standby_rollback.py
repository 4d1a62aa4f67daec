"""Rollbacks to a standby, told as stories: what comes back at once, what boots, and what stays where it is."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain
from stillup.core.crossing import Crossed
from stillup.core.events import (
    AbortAsked,
    ChannelLost,
    Exited,
    HelloSaid,
    Reported,
    RollbackAsked,
    ScaleAsked,
    Spawned,
    TimerFired,
    WorkerBootFailed,
    WorkerResumed,
)
from stillup.core.policy import Timer, TimerKind
from stillup.core.rebuild import consistent
from stillup.core.rollback import previous_release
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import Refused
from tests.core.story import ALSO, BESIDE, NEW, OLD, STANDBY, WEB, Story, serving, spawn, standing_by

THIRD = replace(NEW, directory="/srv/third", label="srv/third")


def roll_back(story: Story) -> None:
    release = previous_release(story.fleet)
    story.tell(RollbackAsked(release, release.fingerprint, "test"))


def back() -> Story:
    """Generation 1 serves again, and generation 2 has left."""
    story = standing_by()
    roll_back(story)
    story.serve(1)
    story.exit(2)
    return story


def test_it_is_back_at_once() -> None:
    """A rollback starts nothing: the paused worker is told to accept, and what served drains once it does."""
    story = standing_by()
    roll_back(story)
    assert story.orders == [BeginAccept(1)]
    assert (story.rollout(3).generation, story.rollout(3).state) == (1, RolloutState.CUTTING_OVER)
    assert story.fleet.last_generation == 2
    story.serve(1)
    assert story.orders == [BeginDrain(2, BESIDE, final=False, packet=64)]
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.DRAINING}
    assert story.rollout(2).state is RolloutState.DONE
    story.exit(2)
    assert story.rollout(3).state is RolloutState.DONE


def test_a_crash_is_taken_back_at_once() -> None:
    """In its probation; and what came back is not taken back in its turn."""
    story = standing_by()
    story.die(2, age=1.0)
    story.ready(3)
    story.serve(3)
    story.die(3, age=1.0)
    assert BeginAccept(1) in story.orders
    story.serve(1)
    assert story.fleet.serving is not None
    assert story.fleet.serving.id == 1
    assert story.rollout(2).state is RolloutState.ROLLED_BACK


def test_asked_again_it_goes_further_back() -> None:
    """And not between the two that were there last; what came first has nothing before it."""
    story = back()
    with pytest.raises(Refused, match="no release is known"):
        previous_release(story.fleet)
    story.reload(THIRD)
    story.ready(3)
    story.serve(3)
    assert previous_release(story.fleet) == OLD
    roll_back(story)
    story.serve(1)
    assert story.fleet.serving is not None
    assert story.fleet.serving.id == 1
    with pytest.raises(Refused, match="no release is known"):
        previous_release(story.fleet)


def test_what_crossed_is_counted_anew() -> None:
    """For the next rollout that replaces the same generation."""
    story = standing_by()
    story.tell(Reported(1, WorkerFigures(crossed=Crossed(given=3))))
    roll_back(story)
    story.serve(1)
    assert story.fleet.crossed_of(1).given == 0
    story.tell(Reported(1, WorkerFigures(crossed=Crossed(given=5))))
    assert story.fleet.crossed_of(1).given == 2


def test_a_rollback_needs_no_room() -> None:
    """It takes the place that the standby has had."""
    story = standing_by(policy=replace(STANDBY, max_draining=1))
    roll_back(story)
    assert story.orders == [BeginAccept(1)]


def test_who_is_lost_is_replaced_for_a_rollback() -> None:
    """Not before; then all accept together, once the new one is READY."""
    story = standing_by(2)
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.orders == []
    assert story.news["worker.died"]["worker"] == "1.1"
    roll_back(story)
    assert story.orders == [spawn(5, 1, 1)]
    story.ready(5)
    assert story.orders == [BeginAccept(5), BeginAccept(2)]
    story.serve(2)
    story.serve(5)
    assert story.generations()[1] is GenerationState.SERVING


def test_who_is_lost_on_the_way_is_replaced() -> None:
    """As long as none accepts; one that fails to boot ends the rollback, and the rest stays in standby."""
    story = standing_by(2)
    story.tell(Exited(1, "killed by SIGKILL"))
    roll_back(story)
    story.tell(Exited(2, "killed by SIGKILL"))
    assert story.orders == [spawn(6, 1, 2)]
    story.ready(5, 6)
    assert story.orders == [BeginAccept(5), BeginAccept(6)]


@pytest.mark.parametrize("how", ["fails", "abort", "reload", "taken over"])
def test_a_rollback_that_is_off_leaves_the_standby(how: str) -> None:
    """What is paused stays so, for the rest of its time; what was started for it leaves."""
    story = standing_by(2)
    story.tell(Exited(1, "killed by SIGKILL"))
    roll_back(story)
    story.tell(Spawned(5, 105), HelloSaid(5))
    if how == "fails":
        story.tell(WorkerBootFailed(5, "import", "no"), Exited(5, "exited 1"))
    elif how == "abort":
        story.tell(AbortAsked("test"), Exited(5, "exited 0"))
    elif how == "reload":
        story.reload(THIRD)
        story.exit(5)
    else:
        story.take_over(2, 3, 4, 5)
        story.exit(5)
    assert story.rollout(3).state is RolloutState.ABORTED
    assert story.generations()[1] is GenerationState.STANDBY
    assert story.workers()[2] is WorkerState.PAUSED
    assert Timer(TimerKind.STANDBY, 1) in story.timers
    assert consistent(story.fleet)
    if how != "reload":
        roll_back(story)
    assert story.fleet.standby is None or how == "reload"


def test_none_left_is_no_standby() -> None:
    """And a rollback boots, as it does without one."""
    story = standing_by()
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.generations() == {2: GenerationState.SERVING}
    assert story.rollout(2).state is RolloutState.DONE
    roll_back(story)
    assert story.orders == [spawn(3, 3, 1)]


def test_one_that_does_not_accept_fails() -> None:
    """As any rollout does whose worker fails on the way into service; what served goes on."""
    story = standing_by()
    roll_back(story)
    story.fire(TimerKind.ADMIT, 1)
    story.exit(1)
    assert story.rollout(3).state is RolloutState.ABORTED
    assert story.fleet.serving is not None
    assert story.fleet.serving.id == 2


def test_a_left_over_is_not_waited_for() -> None:
    """One that drained when the others were paused, and is in nobody's way when these come back."""
    story = serving(2, STANDBY)
    story.tell(Reported(1, recycle="old"))
    story.ready(3)
    story.serve(3)  # 1 drains
    story.reload()
    story.ready(4, 5)
    story.serve(4, 5)
    roll_back(story)
    story.exit(1)
    assert story.rollout(3).state is RolloutState.CUTTING_OVER
    story.serve(2, 3)
    assert story.generations()[1] is GenerationState.SERVING


def test_a_scaling_counts_for_it() -> None:
    """Fewer: those beyond leave at once. More: what is missing boots for the rollback."""
    story = standing_by(2)
    story.tell(ScaleAsked(1))
    assert story.workers()[2] is WorkerState.DRAINING
    story.exit(2, 4)
    story.tell(ScaleAsked(2))
    roll_back(story)
    assert story.orders == [spawn(6, 1, 2)]


def test_one_that_is_cut_off_on_the_way_is_replaced() -> None:
    """When it has left."""
    story = standing_by(2)
    story.tell(Exited(1, "killed by SIGKILL"))
    roll_back(story)
    story.tell(ChannelLost(2, "garbage"))
    story.exit(2)
    assert story.orders == [spawn(6, 1, 2)]


def test_it_does_not_come_back_where_less_is_listened_on() -> None:
    """What served has brought a listener that nobody of the standby has."""
    story = serving(1, STANDBY)
    story.fleet = replace(
        story.fleet,
        generations={1: replace(story.fleet.generations[1], release=replace(OLD, binds=(WEB,)))},
        listeners=(WEB,),
    )
    story.reload(replace(NEW, binds=(WEB, ALSO)))
    story.ready(2)
    story.serve(2)
    roll_back(story)
    assert story.fleet.last_generation == 3
    assert story.generations()[1] is GenerationState.STANDBY


def test_taken_over_on_its_way_back() -> None:
    """One that was told to accept and has not heard of it is told again."""
    story = standing_by()
    roll_back(story)
    story.take_over(1, 2)
    story.tell(WorkerResumed(1, draining=False, paused=True))
    assert story.orders[0] == BeginAccept(1)
    assert story.workers()[1] is WorkerState.ACCEPTING
    story.serve(1)
    assert story.generations()[1] is GenerationState.SERVING


def test_a_deadline_of_before_its_pause_is_none_of_now() -> None:
    """It was told to accept once before, and kept that deadline; its timer comes when it is told so again."""
    story = standing_by()
    first = Timer(TimerKind.ADMIT, 1)
    roll_back(story)
    story.now += 1.0
    story.tell(TimerFired(first))
    assert story.workers()[1] is WorkerState.ACCEPTING
    story.fire(TimerKind.ADMIT, 1)
    assert story.workers()[1] is WorkerState.STOPPING
