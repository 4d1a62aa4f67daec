"""A standby, told as stories: what pauses, what comes back, and what ends it."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain, BeginPause, HurryDrain, Kill, TellCordon
from stillup.core.crossing import Crossed
from stillup.core.events import (
    ChannelLost,
    CordonAsked,
    Exited,
    HeartbeatsDue,
    ReloadAsked,
    Reported,
    RollbackAsked,
    StopAsked,
    TimerFired,
    WorkerResumed,
)
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.rebuild import consistent
from stillup.core.rollback import previous_release
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.core.worker_figures import Leadership, WorkerFigures
from stillup.errors import Refused, UsageError
from tests.core.story import BESIDE, NEW, STANDBY, Story, serving, standing_by

THIRD = replace(NEW, directory="/srv/third", label="srv/third")
AT_REST = WorkerFigures(at_rest=True)


def roll_back(story: Story) -> None:
    release = previous_release(story.fleet)
    story.tell(RollbackAsked(release, release.fingerprint, "test"))


def test_the_old_workers_pause() -> None:
    """At the cut-over, for so long, instead of being told to drain."""
    story = standing_by()
    assert story.orders == [BeginPause(1, BESIDE, 64)]
    assert story.generations() == {1: GenerationState.STANDBY, 2: GenerationState.SERVING}
    assert story.workers() == {1: WorkerState.PAUSED, 2: WorkerState.SERVING}
    assert story.news["generation.standby"] == {"generation": 1, "workers": 1, "seconds": 100.0}
    assert story.timers[Timer(TimerKind.STANDBY, 1)] == story.now + 100.0


def test_who_is_not_well_leaves() -> None:
    """One that hangs is killed, one that is to be replaced drains; what is left stands by."""
    story = serving(3, STANDBY)
    story.tell(Reported(1, recycle="old"))
    story.now += 50.0
    story.tell(Reported(1), Reported(3))
    story.now += 30.0
    story.tell(HeartbeatsDue(story.now))
    story.reload()
    new = [n for n, w in story.fleet.workers.items() if w.generation == 2]
    story.ready(*new)
    story.serve(*new)
    states = story.workers()
    assert (states[1], states[2], states[3]) == (WorkerState.DRAINING, WorkerState.KILLED, WorkerState.PAUSED)
    assert consistent(story.fleet)


def test_nobody_well_is_no_standby() -> None:
    """The old generation leaves as it would without one."""
    story = serving(1, STANDBY)
    story.tell(Reported(1, recycle="old"))
    story.reload()
    story.ready(3)
    story.serve(3)
    assert story.generations()[1] is GenerationState.DRAINING


@pytest.mark.parametrize("strategy", [Strategy(), Strategy(StrategyKind.ROLLING, standby=100.0)])
def test_none_is_kept(strategy: Strategy) -> None:
    """Where none was asked for, nor by a rolling rollout."""
    story = standing_by(policy=Policy(strategy=strategy))
    assert story.generations()[1] is GenerationState.DRAINING


def test_a_rollout_is_done_when_nothing_is_held() -> None:
    """Not when the standby is over: whoever waits for the drain waits for no longer than that."""
    story = standing_by()
    crossed = Crossed(given=3)
    story.tell(Reported(1, replace(AT_REST, crossed=crossed)))
    assert (story.rollout(2).state, story.rollout(2).crossed) == (RolloutState.DONE, crossed)
    assert story.generations()[1] is GenerationState.STANDBY


def test_its_time() -> None:
    """It drains when its time is over. A timer that comes early waits for the rest; a late one finds nothing."""
    story = standing_by()
    story.tell(TimerFired(Timer(TimerKind.STANDBY, 1)))
    assert story.generations()[1] is GenerationState.STANDBY
    story.fire(TimerKind.STANDBY, 1)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64)]
    with pytest.raises(Refused, match="no standby"):
        story.tell(TimerFired(Timer(TimerKind.STANDBY, 1)))


def test_the_next_one_takes_its_place() -> None:
    """At the next cut-over it drains, and what that replaced is paused."""
    story = standing_by()
    story.reload(THIRD)
    story.ready(3)
    story.serve(3)
    assert story.generations() == {
        1: GenerationState.DRAINING,
        2: GenerationState.STANDBY,
        3: GenerationState.SERVING,
    }


def test_it_makes_room() -> None:
    """At the limit of generations that drain it is the first to leave; what streams elsewhere is let alone."""
    story = standing_by(policy=replace(STANDBY, max_draining=1))
    story.reload(THIRD)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64), HurryDrain(1)]
    assert story.rollout(3).state is RolloutState.WAITING
    story.exit(1)
    assert story.rollout(3).state is RolloutState.BOOTING


def test_what_it_streams_may_be_hurried() -> None:
    """By who asks for that, as what a generation streams that drains."""
    story = standing_by()
    story.tell(ReloadAsked(THIRD, "test", hurry=True))
    assert story.orders[0] == HurryDrain(1, every=True)


def test_it_makes_room_for_a_rolling_rollout() -> None:
    """Which counts every process."""
    story = standing_by()
    story.tell(ReloadAsked(THIRD, "test", strategy=Strategy(StrategyKind.ROLLING)))
    assert story.generations()[1] is GenerationState.DRAINING


def test_who_is_paused_is_judged_by_its_heartbeats() -> None:
    """One that hangs is killed, and not replaced; nobody is when the supervisor was late."""
    story = standing_by()
    story.tell(HeartbeatsDue(story.now, late=True))
    story.now += 50.0
    story.tell(Reported(2), HeartbeatsDue(story.now))
    assert story.orders == []
    story.now += 50.0
    story.tell(Reported(2), HeartbeatsDue(story.now))
    assert story.orders == [Kill(1)]
    assert story.news["worker.hung"]["worker"] == "1.1"
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.generations() == {2: GenerationState.SERVING}


def test_it_is_not_replaced() -> None:
    """Whatever limit it has reached; it asks again when it serves."""
    story = standing_by()
    story.tell(Reported(1, recycle="old"))
    assert (story.orders, story.fleet.workers[1].recycle) == ([], "")


def test_it_does_not_lead() -> None:
    """It lets go as one that is told to leave, and another is told."""
    story = serving(1, STANDBY)
    wants = WorkerFigures(leadership=Leadership(wants=True))
    story.tell(Reported(1, wants))
    assert story.fleet.term.worker == 1
    story.now += 10.0
    story.reload()
    story.ready(2)
    story.serve(2)
    assert story.fleet.term.due is not None
    story.tell(Reported(2, wants))
    story.tell(Reported(1, WorkerFigures(leadership=Leadership(let_go=1))))
    assert story.fleet.term.worker == 2


def test_one_that_does_not_let_go_is_killed() -> None:
    """As one that is told to leave, once another could lead; and nothing is left of the standby."""
    story = serving(1, STANDBY)
    wants = WorkerFigures(leadership=Leadership(wants=True))
    story.tell(Reported(1, wants))
    story.now += 10.0
    story.reload()
    story.ready(2)
    story.serve(2)
    story.tell(Reported(2, wants))
    story.fire(TimerKind.LEADER, 1)
    assert story.orders == [Kill(1)]
    assert story.generations()[1] is GenerationState.DRAINING


def test_one_that_is_cut_off_drains() -> None:
    """It hears nothing any more; it counts as one that failed."""
    story = standing_by()
    story.tell(ChannelLost(1, "garbage"))
    assert story.workers()[1] is WorkerState.DRAINING
    assert story.generations()[1] is GenerationState.DRAINING


def test_a_stop_ends_it() -> None:
    """For good, as all that lives."""
    story = standing_by()
    story.tell(StopAsked("test"))
    assert BeginDrain(1, story.orders[-1].timeouts, final=True, packet=64) in story.orders  # type: ignore[union-attr]


def test_it_knows_of_a_cordon() -> None:
    """It says what the others say when it comes back."""
    story = standing_by()
    story.tell(CordonAsked("test"))
    assert TellCordon(1, on=True) in story.orders


def test_taken_over_it_is_paused() -> None:
    """For the rest of its time; who has not heard of it is told again, and who serves by the record is told that."""
    story = standing_by()
    story.now += 40.0
    story.take_over(1, 2)
    assert story.workers() == {1: WorkerState.PAUSED, 2: WorkerState.SERVING}
    assert story.timers[Timer(TimerKind.STANDBY, 1)] == story.now + 60.0
    story.tell(WorkerResumed(1, draining=False, paused=True))
    assert BeginPause(1, BESIDE, 64) not in story.orders
    story.tell(WorkerResumed(1, draining=False))
    assert BeginPause(1, BESIDE, 64) in story.orders
    story.tell(WorkerResumed(2, draining=False, paused=True))
    assert story.orders[0] == BeginAccept(2)


def test_one_that_gave_up_drains() -> None:
    """It had no supervisor for too long."""
    story = standing_by()
    story.take_over(1, 2)
    story.tell(WorkerResumed(1, draining=True))
    assert story.generations()[1] is GenerationState.DRAINING


def test_one_in_standby_at_most_is_on_record() -> None:
    """Another is no fleet of ours."""
    story = standing_by()
    two = story.fleet.with_generation(replace(story.fleet.generations[1], id=3))
    two = two.with_worker(replace(two.workers[1], serial=3, generation=3))
    assert consistent(story.fleet)
    assert not consistent(replace(two, last_generation=3, last_worker=3))


@pytest.mark.parametrize("seconds", [-1.0, 1e9])
def test_a_time_that_cannot_be(seconds: float) -> None:
    """It is refused before anything is begun."""
    story = serving(1)
    with pytest.raises(UsageError, match="--standby"):
        story.tell(ReloadAsked(NEW, "test", strategy=Strategy(standby=seconds)))
