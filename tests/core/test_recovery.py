"""What another supervisor makes of a fleet, told as stories: its supervisor has ended, some of its workers too."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain, Exit, HurryDrain, Kill, Reexec, Terminate
from stillup.core.crossing import Crossed
from stillup.core.drain import uniform
from stillup.core.events import (
    BeganServing,
    ChannelLost,
    Exited,
    ReexecAsked,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    StopAsked,
    TookOver,
    WorkerResumed,
)
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import GenerationState, RolloutState, ScalingState, ServiceState, WorkerState
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import Refused
from stillup.wire.record_format import lasting
from tests.core.story import BESIDE, NEW, OLD, begin, draining, serving, spawn

# Serving


def test_workers_that_serve_serve_on() -> None:
    """A generation whose workers all live is taken over as it is: no order, no timer, one announcement."""
    story = serving(2)
    before = story.fleet
    story.take_over(1, 2)
    assert lasting(story.fleet) == lasting(before)
    assert (story.orders, story.timers) == ([], {})
    assert story.news == {"service.taken-over": {"generation": 1, "workers": 2, "died": 0}}
    story.tell(WorkerResumed(1, draining=False), WorkerResumed(2, draining=False))
    assert (lasting(story.fleet), story.orders, story.news) == (lasting(before), [], {})


def test_a_take_over_may_want_another_number_of_workers() -> None:
    """The size that comes with a take-over is that of the next generation; the one that serves stays as it is."""
    story = serving(2)
    story.tell(TookOver(frozenset({1, 2}), size=3))
    assert (story.fleet.size, story.fleet.generations[1].size, story.orders) == (3, 2, [])
    story.reload()
    assert story.orders == [spawn(3, 2, 1, NEW), spawn(4, 2, 2, NEW), spawn(5, 2, 3, NEW)]


def test_a_take_over_that_wants_another_number_supersedes_a_request_to_scale() -> None:
    """What was asked for would never be there, since the next generation is of the other size."""
    story = serving(1)
    story.tell(ScaleAsked(3))
    story.tell(TookOver(frozenset(story.fleet.workers), size=3))
    assert story.fleet.scaling_under_way is not None
    story.tell(TookOver(frozenset(story.fleet.workers), size=2))
    assert story.news["scaling.aborted"] == {"scaling": 1, "workers": 3, "reason": "superseded"}
    assert story.fleet.scaling_under_way is None


def test_a_rollout_that_waits_begins_with_the_size_of_the_take_over() -> None:
    """What a take-over lets begin is of the size that came with it."""
    story = draining(1)
    story.fleet = replace(story.fleet, policy=Policy(max_draining=1))
    story.reload(OLD)
    story.tell(TookOver(frozenset({2}), size=2))
    assert story.orders == [spawn(3, 3, 1, OLD), spawn(4, 3, 2, OLD)]


def test_a_worker_that_died_meanwhile_is_replaced() -> None:
    """The slot of a worker that ended while no supervisor ran is filled at once, and its death is told."""
    story = serving(2)
    story.take_over(2)
    assert story.orders == [spawn(3, 1, 1)]
    assert story.timers == {Timer(TimerKind.BOOT, 3): 120.0}
    assert story.news["worker.died"]["why"] == "1.1 (pid 101) ended while no supervisor ran"
    assert story.news["service.taken-over"] == {"generation": 1, "workers": 1, "died": 1}


def test_all_died_meanwhile() -> None:
    """A generation of which no worker is left still is the one that serves: each of its slots is filled."""
    story = serving(2)
    story.take_over()
    assert story.orders == [spawn(3, 1, 1), spawn(4, 1, 2)]
    assert story.generations() == {1: GenerationState.SERVING}


def test_a_worker_that_was_to_serve_in_an_empty_slot_is_begun_anew() -> None:
    """A respawned worker that had not accepted is told to leave, which is no death; its slot is filled at once."""
    story = serving(1)
    story.die(1, age=90.0)
    story.tell(Spawned(2, 102))
    story.take_over(2)
    assert story.orders == [Terminate(2), spawn(3, 1, 1)]
    assert story.timers == {Timer(TimerKind.TERM, 2): 95.0, Timer(TimerKind.BOOT, 3): 150.0}
    story.tell(Exited(2, "exited 0"))
    assert story.news == {}


def test_a_slot_that_waits_goes_on_waiting() -> None:
    """A slot whose workers keep dying has its timer again, counted from now."""
    story = serving(1)
    story.die(1, age=90.0)
    story.die(2, age=1.0)
    story.now = 1000.0
    story.take_over()
    assert story.timers == {Timer(TimerKind.RESPAWN, 1, 1): 1001.5}
    story.fire(TimerKind.RESPAWN, 1, slot=1)
    assert story.orders == [spawn(3, 1, 1)]


def test_a_worker_to_be_replaced_still_has_its_turn() -> None:
    """A worker that was to be replaced before its supervisor ended is replaced by the next supervisor."""
    story = serving(1)
    story.tell(Reported(1, recycle="old"))
    story.take_over(1)
    assert story.orders == [spawn(3, 1, 1)], "the replacement that was on its way is not there"
    story.tell(WorkerResumed(1, draining=False))
    story.ready(3)
    story.serve(3)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64)]


def test_a_scaling_goes_on() -> None:
    """A request for more workers is aborted when the new one is dead; as many are wanted as before, and started."""
    story = serving(1)
    story.tell(ScaleAsked(2))
    story.take_over(1)
    assert story.news["scaling.aborted"]["reason"] == "exit", "the worker that it had started is dead"
    assert story.orders == [spawn(3, 1, 2)]
    assert story.fleet.size == 2
    assert story.fleet.scalings[0].state is ScalingState.ABORTED


# Leaving


def test_a_worker_that_drains_goes_on_draining() -> None:
    """A draining worker that comes back draining is told nothing, and its deadline is counted from now."""
    story = draining()
    story.now = 500.0
    story.take_over(1, 2)
    assert (story.orders, story.timers) == ([], {Timer(TimerKind.DRAIN, 1): 565.0})
    story.tell(WorkerResumed(1, draining=True), WorkerResumed(2, draining=False))
    assert story.orders == []
    story.exit(1)
    assert story.rollout(2).state is RolloutState.DONE
    assert story.generations() == {2: GenerationState.SERVING}


def test_an_order_to_drain_that_was_lost_is_given_again() -> None:
    """A worker that should drain, and serves when it comes back, is told to."""
    story = draining()
    story.take_over(1, 2)
    story.tell(WorkerResumed(1, draining=False))
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64)]


def test_a_drain_that_ended_meanwhile() -> None:
    """A draining generation whose last worker ended while no supervisor ran is gone, and its rollout done."""
    story = draining()
    story.take_over(2)
    assert story.generations() == {2: GenerationState.SERVING}
    assert story.rollout(2).state is RolloutState.DONE
    assert (story.orders, "worker.died" in story.news) == ([], False)


def test_signals_are_sent_again() -> None:
    """A signal may not have been sent before the supervisor ended: it is sent again, with its deadline."""
    story = draining(2)
    story.fire(TimerKind.DRAIN, 1)
    story.fire(TimerKind.DRAIN, 2)
    story.fire(TimerKind.TERM, 2)
    story.take_over(1, 2, 3, 4)
    assert story.orders == [Terminate(1), Kill(2)]
    assert story.timers == {Timer(TimerKind.TERM, 1): story.now + 10.0}


def test_a_worker_that_drains_by_itself_is_replaced() -> None:
    """A worker that waited too long for a supervisor drains: its slot is filled, and it has a deadline."""
    story = serving(2)
    story.take_over(1, 2)
    story.tell(WorkerResumed(2, draining=True))
    assert story.orders == [spawn(3, 1, 2)]
    assert story.workers() == {1: WorkerState.SERVING, 2: WorkerState.DRAINING, 3: WorkerState.SPAWNED}
    assert story.timers[Timer(TimerKind.DRAIN, 2)] == 125.0
    story.exit(2)
    assert "worker.died" not in story.news


def test_a_worker_on_its_way_out_may_come_back() -> None:
    """A worker that was sent a signal may find the next supervisor before it ends; nothing new is said to it."""
    story = draining()
    story.fire(TimerKind.DRAIN, 1)
    story.take_over(1, 2)
    story.tell(WorkerResumed(1, draining=True))
    assert story.orders == []


def test_a_worker_that_was_not_told_to_accept_does_not_come_back() -> None:
    """A worker that comes back before it has accepted is refused: it holds nothing, and leaves."""
    story = begin(1)
    story.tell(Spawned(1, 101))
    before = story.fleet
    with pytest.raises(Refused, match=r"worker 1\.1 was not told to accept"):
        story.tell(WorkerResumed(1, draining=False))
    assert story.fleet == before


def test_a_channel_that_broke_is_no_end() -> None:
    """A worker that was cut off, and comes back by another channel, is told to drain: another one has its slot."""
    story = serving(1)
    story.tell(ChannelLost(1, "garbage"))
    assert story.orders == [spawn(2, 1, 1)]
    story.tell(WorkerResumed(1, draining=False))
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64)]


# A stop under way


def test_a_stop_ends_with_its_supervisor() -> None:
    """Workers of a service that was stopping leave as they were told; a reload starts it anew beside them."""
    story = draining()
    story.tell(StopAsked("test"))
    story.take_over(1, 2)
    assert story.state() is ServiceState.STARTING
    assert story.fleet.exit_code == 0
    story.tell(ReloadAsked(NEW, "start"))
    assert story.orders == [HurryDrain(1), HurryDrain(2)], "two generations drain already"
    story.tell(WorkerResumed(2, draining=False))
    assert story.orders == [BeginDrain(2, BESIDE, final=False, packet=64)]
    story.exit(1)
    assert story.orders == [spawn(3, 3, 1, NEW)]
    story.exit(2)
    story.ready(3)
    story.serve(3)
    assert story.state() is ServiceState.SERVING
    assert story.rollout(3).state is RolloutState.DONE


def test_a_first_release_that_failed() -> None:
    """The exit code of a service that was ending is not that of the next one."""
    story = begin(2)
    story.tell(Spawned(1, 101), Spawned(2, 102), Exited(1, "exited 3"))
    assert (story.state(), story.fleet.exit_code) == (ServiceState.STOPPING, 1)
    story.take_over(2)
    assert (story.state(), story.fleet.exit_code) == (ServiceState.STARTING, 0)
    story.exit(2)
    assert story.generations() == {}
    assert Exit(1) not in story.orders


# Afterwards


def test_what_crossed_is_not_forgotten() -> None:
    """The figures of those that ended meanwhile are kept, as far as they are on record."""
    story = draining()
    story.tell(Reported(1, WorkerFigures(crossed=Crossed(given=5))))
    story.take_over(2)
    assert story.fleet.crossed.given == 5


def test_a_taken_over_service_is_like_any_other() -> None:
    """After all of it a reload goes its usual way, to its end."""
    story = serving(1)
    story.take_over(1)
    story.tell(WorkerResumed(1, draining=False))
    story.reload()
    story.ready(2)
    assert story.orders == [BeginAccept(2)]
    story.tell(BeganServing(2))
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64)]
    story.exit(1)
    assert story.rollout(2).state is RolloutState.DONE


# What a supervisor is asked that takes over


def test_a_stop_is_final_for_a_worker_that_comes_back_late() -> None:
    """A worker that resumes in a service that stops is told of a final drain, whatever it does already."""
    for leaves in (False, True):
        story = serving(2)
        story.take_over(1, 2)
        story.tell(StopAsked("test"))
        story.tell(WorkerResumed(1, draining=leaves))
        assert story.orders == [BeginDrain(1, uniform(30.0), final=True, packet=64)]


def test_the_program_is_replaced_when_nothing_needs_this_one() -> None:
    """While a generation serves and no worker is on its way to that; a rollout that only waits goes on after it."""
    story = serving(1)
    story.tell(ReexecAsked())
    assert story.orders == [Reexec()]
    assert story.news == {"supervisor.reexec": {}}


def test_the_program_is_not_replaced_while_something_needs_this_one() -> None:
    """Not before anybody serves, not in a stop, not in the middle of a rollout, not while a worker is being started."""
    starting = begin(1)
    stopping = serving(1)
    stopping.tell(StopAsked("test"))
    reloading = serving(1)
    reloading.reload()
    growing = serving(1)
    growing.tell(ScaleAsked(2))
    for story, why in (
        (starting, "the service is starting"),
        (stopping, "the service is stopping"),
        (reloading, "a rollout is under way"),
        (growing, r"worker 1\.2 is being started"),
    ):
        with pytest.raises(Refused, match=why):
            story.tell(ReexecAsked())
