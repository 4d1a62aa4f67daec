"""What another supervisor makes of a fleet, told as stories: its supervisor has ended, some of its workers too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from supervisor.core.commands import Accept, BeginDrain, Exit, Hurry, Kill, Reexec, Terminate
from supervisor.core.crossing import Crossed
from supervisor.core.events import (
    BecameReady,
    BeganServing,
    ChannelLost,
    Exited,
    HelloSaid,
    ReexecAsked,
    ReloadAsked,
    Reported,
    Resumed,
    ScaleAsked,
    Spawned,
    StopAsked,
    Timer,
    TimerKind,
)
from supervisor.core.model import (
    GenerationState,
    Policy,
    RolloutState,
    ScalingState,
    ServiceState,
    WorkerState,
)
from supervisor.core.recovery import LOST
from supervisor.errors import Refused
from supervisor.wire.record import lasting
from tests.core.telling import NEW, OLD, Story, begin, cutting_over, draining, serving, spawn

# Serving


def test_who_serves_serves_on() -> None:
    """A generation whose workers all live is taken over as it is: no order, no timer, one announcement."""
    story = serving(2)
    before = story.fleet
    story.take_over(1, 2)
    assert lasting(story.fleet) == lasting(before)
    assert (story.orders, story.timers) == ([], {})
    assert story.news == {"service.taken-over": {"generation": 1, "workers": 2, "died": 0}}
    story.tell(Resumed(1, draining=False), Resumed(2, draining=False))
    assert (lasting(story.fleet), story.orders, story.news) == (lasting(before), [], {})


def test_who_died_meanwhile_is_replaced() -> None:
    """The slot of a worker that ended while no supervisor ran is filled at once, and its death is told."""
    story = serving(2)
    story.take_over(2)
    assert story.orders == [spawn(3, 1, 1)]
    assert story.timers == {Timer(TimerKind.BOOT, 3): 120.0}
    assert story.news["worker.died"]["why"] == "1.1 (pid 101) ended while no supervisor ran"
    assert story.news["service.taken-over"] == {"generation": 1, "workers": 1, "died": 1}


def test_all_died_meanwhile() -> None:
    """A generation of which nobody is left still is the one that serves: each of its slots is filled."""
    story = serving(2)
    story.take_over()
    assert story.orders == [spawn(3, 1, 1), spawn(4, 1, 2)]
    assert story.generations() == {1: GenerationState.SERVING}


def test_who_was_to_serve_in_an_empty_slot_is_begun_anew() -> None:
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


def test_a_worn_worker_still_has_its_turn() -> None:
    """Who was worn before its supervisor ended is relieved by the next one."""
    story = serving(1)
    story.tell(Reported(1, worn="old"))
    story.take_over(1)
    assert story.orders == [spawn(3, 1, 1)], "the heir that was on its way is not there"
    story.tell(Resumed(1, draining=False))
    story.ready(3)
    story.serve(3)
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=64)]


def test_a_scaling_goes_on() -> None:
    """A request for more workers is aborted when the new one is dead; as many are wanted as before, and started."""
    story = serving(1)
    story.tell(ScaleAsked(2))
    story.take_over(1)
    assert story.news["scaling.aborted"]["reason"] == "exit", "the worker that it had started is dead"
    assert story.orders == [spawn(3, 1, 2)]
    assert story.fleet.size == 2
    assert story.fleet.scalings[0].state is ScalingState.ABORTED


# A rollout under way


def test_a_rollout_that_boots_is_aborted() -> None:
    """Who had not accepted leaves, the rollout is aborted for that, and the old generation serves on."""
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
    """A rollout that nobody is left of was the supervisor's loss: its reason is that, and the service does not stop."""
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
    assert BeginDrain(2, 30.0, final=False, packet=64) in story.orders
    assert story.state() is ServiceState.STARTING
    story.exit(2)
    assert story.generations() == {}
    assert story.state() is ServiceState.STARTING


def test_a_cut_over_goes_on() -> None:
    """Workers that were told to accept, and did, come back serving: that is the cut-over, and the old ones drain."""
    story = cutting_over(2)
    story.take_over(1, 2, 3, 4)
    assert (story.orders, set(story.timers)) == ([], {Timer(TimerKind.ADMIT, 3), Timer(TimerKind.ADMIT, 4)})
    story.tell(Resumed(3, draining=False))
    assert (story.orders, story.workers()[3]) == ([], WorkerState.SERVING)
    story.tell(Resumed(4, draining=False))
    assert story.orders == [BeginDrain(n, 30.0, final=False, packet=16) for n in (1, 2)]
    assert story.rollout(2).state is RolloutState.DRAINING
    assert story.news["rollout.cut-over"] == {"rollout": 2, "generation": 2, "previous": 1}


def test_a_cut_over_that_was_not_heard_of() -> None:
    """Who was told to accept and did not hear it leaves; the rollout is aborted by its exit, and the others drain."""
    story = cutting_over(2)
    story.take_over(1, 2, 3, 4)
    story.tell(Resumed(3, draining=False))
    story.exit(4)
    assert story.rollout(2).state is RolloutState.ABORTED
    assert story.orders == [BeginDrain(3, 30.0, final=False, packet=16)]
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.DRAINING}


def test_a_cut_over_without_all() -> None:
    """A cut-over of which one worker is dead is aborted at once: who serves of it drains, for the old ones."""
    story = cutting_over(2)
    story.serve(3)
    story.take_over(1, 2, 3)
    assert story.rollout(2).reason == LOST
    assert BeginDrain(3, 30.0, final=False, packet=16) in story.orders
    story.tell(Resumed(3, draining=False))
    assert story.orders == [BeginDrain(3, 30.0, final=False, packet=16)], "it could not be told before"


def test_a_cut_over_of_workers_that_drain() -> None:
    """A worker that was to accept, and drains when it comes back, is ended: its rollout fails by its exit."""
    story = cutting_over(1)
    story.take_over(1, 2)
    story.tell(Resumed(2, draining=True))
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


# Leaving


def test_who_drains_goes_on_draining() -> None:
    """A draining worker that comes back draining is told nothing, and its deadline is counted from now."""
    story = draining()
    story.now = 500.0
    story.take_over(1, 2)
    assert (story.orders, story.timers) == ([], {Timer(TimerKind.DRAIN, 1): 535.0})
    story.tell(Resumed(1, draining=True), Resumed(2, draining=False))
    assert story.orders == []
    story.exit(1)
    assert story.rollout(2).state is RolloutState.DONE
    assert story.generations() == {2: GenerationState.SERVING}


def test_an_order_to_drain_that_was_lost_is_given_again() -> None:
    """A worker that should drain, and serves when it comes back, is told to."""
    story = draining()
    story.take_over(1, 2)
    story.tell(Resumed(1, draining=False))
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=64)]


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


def test_who_drains_by_itself_is_replaced() -> None:
    """A worker that waited too long for a supervisor drains: its slot is filled, and it has a deadline."""
    story = serving(2)
    story.take_over(1, 2)
    story.tell(Resumed(2, draining=True))
    assert story.orders == [spawn(3, 1, 2)]
    assert story.workers() == {1: WorkerState.SERVING, 2: WorkerState.DRAINING, 3: WorkerState.SPAWNED}
    assert story.timers[Timer(TimerKind.DRAIN, 2)] == 95.0
    story.exit(2)
    assert "worker.died" not in story.news


def test_who_is_on_its_way_out_may_come_back() -> None:
    """A worker that was sent a signal may find the next supervisor before it ends; nothing new is said to it."""
    story = draining()
    story.fire(TimerKind.DRAIN, 1)
    story.take_over(1, 2)
    story.tell(Resumed(1, draining=True))
    assert story.orders == []


def test_who_was_not_told_to_accept_does_not_come_back() -> None:
    """A worker that comes back before it has accepted is refused: it holds nothing, and leaves."""
    story = begin(1)
    story.tell(Spawned(1, 101))
    before = story.fleet
    with pytest.raises(Refused, match=r"worker 1\.1 was not told to accept"):
        story.tell(Resumed(1, draining=False))
    assert story.fleet == before


def test_a_channel_that_broke_is_no_end() -> None:
    """A worker that was cut off, and comes back by another channel, is told to drain: somebody else has its slot."""
    story = serving(1)
    story.tell(ChannelLost(1, "garbage"))
    assert story.orders == [spawn(2, 1, 1)]
    story.tell(Resumed(1, draining=False))
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=64)]


# A stop under way


def test_a_stop_ends_with_its_supervisor() -> None:
    """Workers of a service that was stopping leave as they were told; a reload starts it anew beside them."""
    story = draining()
    story.tell(StopAsked("test"))
    story.take_over(1, 2)
    assert story.state() is ServiceState.STARTING
    assert story.fleet.exit_code == 0
    story.tell(ReloadAsked(NEW, "start"))
    assert story.orders == [Hurry(1), Hurry(2)], "two generations drain already"
    story.tell(Resumed(2, draining=False))
    assert story.orders == [BeginDrain(2, 30.0, final=False, packet=64)]
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
    story.tell(Reported(1, crossed=Crossed(given=5)))
    story.take_over(2)
    assert story.fleet.crossed.given == 5


def test_a_taken_over_service_is_like_any_other() -> None:
    """After all of it a reload goes its usual way, to its end."""
    story = serving(1)
    story.take_over(1)
    story.tell(Resumed(1, draining=False))
    story.reload()
    story.ready(2)
    assert story.orders == [Accept(2)]
    story.tell(BeganServing(2))
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=64)]
    story.exit(1)
    assert story.rollout(2).state is RolloutState.DONE


# What a supervisor is asked that takes over


def test_a_stop_is_final_for_who_comes_back_late() -> None:
    """Who resumes in a service that stops is told that nobody comes after, whatever it does already."""
    for leaves in (False, True):
        story = serving(2)
        story.take_over(1, 2)
        story.tell(StopAsked("test"))
        story.tell(Resumed(1, draining=leaves))
        assert story.orders == [BeginDrain(1, 30.0, final=True, packet=64)]


def test_a_worker_of_the_first_protocol_drains_by_itself() -> None:
    """One that does not come back is not waited for: its slot is filled, and the program is not replaced before."""
    story = begin(1)
    story.tell(Spawned(1, 101), HelloSaid(1, comes_back=False), BecameReady(1), BeganServing(1))
    with pytest.raises(Refused, match=r"worker 1\.1 runs a stillup that would not come back"):
        story.tell(ReexecAsked())
    story.take_over(1)
    assert story.orders == [spawn(2, 1, 1)]
    assert story.fleet.workers[1].state is WorkerState.DRAINING


def test_the_program_is_replaced_when_nothing_needs_this_one() -> None:
    """While a generation serves and nobody is on the way into service; a rollout that only waits goes on after it."""
    story = serving(1)
    story.tell(ReexecAsked())
    assert story.orders == [Reexec()]
    assert story.news == {"supervisor.reexec": {}}


def test_the_program_is_not_replaced_while_somebody_needs_this_one() -> None:
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
