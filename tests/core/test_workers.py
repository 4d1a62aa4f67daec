"""A worker by itself: its channel, the deadlines of its orders, its end, and what is refused."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginDrain, Exit, Kill, Spawn, Terminate
from stillup.core.drain import uniform
from stillup.core.events import (
    BecameReady,
    BeganServing,
    ChannelLost,
    Event,
    Exited,
    HelloSaid,
    Reported,
    Spawned,
    SpawnFailed,
    StopAsked,
    TimerFired,
    WorkerBootFailed,
)
from stillup.core.model import Failure
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import WorkerState
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import Refused
from tests.core.story import OLD, serving

# It loses its channel


def test_a_worker_that_cannot_be_told_anything_is_replaced() -> None:
    """A serving worker whose channel is lost is to drain as soon as it comes back, and is replaced at once."""
    story = serving(1, policy=Policy(drain_timeout=20.0, grace=4.0))
    story.tell(ChannelLost(1, "broke the protocol"))
    assert story.orders == [Spawn(2, 1, 1, OLD, 60.0, 20.0)]
    assert story.timers[Timer(TimerKind.DRAIN, 1)] == 104.0
    assert story.fleet.workers[1].state is WorkerState.DRAINING
    assert story.fleet.workers[1].failure == Failure("channel", "broke the protocol")


def test_who_is_cut_off_is_told_of() -> None:
    """Once, with the reason: not when it is on its way out anyhow."""
    story = serving(size=2)
    story.tell(ChannelLost(1, "broke the protocol"))
    assert story.news["worker.cut-off"] == {"worker": "1.1", "pid": 101, "why": "broke the protocol"}
    story.news.clear()
    story.tell(ChannelLost(1, "broke the protocol"))
    assert "worker.cut-off" not in story.news


def test_a_lost_channel_counts_as_a_death() -> None:
    """A young worker that loses its channel makes its slot wait like one that dies; its end is told as a death."""
    story = serving(1)
    story.die(1, age=60.0)
    story.ready(2)
    story.serve(2)
    story.tell(ChannelLost(2, "broke the protocol"))
    assert story.news["worker.waits"]["deaths"] == 2
    story.tell(Exited(2, "exited 0"))
    assert story.orders == []
    assert story.news["worker.died"]["why"] == "1.1 (pid 102) broke the protocol"


def test_a_channel_that_is_lost_on_the_way_out_changes_nothing() -> None:
    """A worker that drains, or that was sent a signal, may close its channel as it likes."""
    story = serving(1)
    story.tell(StopAsked("test"))
    for after in (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED):
        story.tell(ChannelLost(1, "closed"))
        assert (story.orders, story.news, story.workers()) == ([], {}, {1: after})
        story.tell(StopAsked("test", insist=True))


# It does not leave

SAYS_NOTHING = {"held_up": False, "message": ""}
"""Of threads of its app's."""


def test_a_worker_that_does_not_end_its_drain_is_sent_away() -> None:
    """Past its drain's deadline a worker gets SIGTERM and what it still held is told; past that one's, SIGKILL."""
    story = serving(1, policy=Policy(stop_timeout=20.0, grace=4.0))
    story.tell(Reported(1, WorkerFigures({"in-progress": 2})), StopAsked("test"))
    story.fire(TimerKind.DRAIN, 1)
    assert (story.now, story.orders) == (84.0, [Terminate(1)])
    assert story.news == {"worker.overdue": {"worker": "1.1", "connections": {"in-progress": 2}, **SAYS_NOTHING}}
    story.fire(TimerKind.TERM, 1)
    assert (story.now, story.orders) == (88.0, [Kill(1)])
    assert story.news == {"worker.killed": {"worker": "1.1", "connections": {"in-progress": 2}}}
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.orders == [Exit(0)]


def test_a_worker_of_whose_drain_nothing_is_known_is_overdue() -> None:
    """A record of before does not say since when a worker drains: its timer is the last word."""
    story = serving(1, policy=Policy(stop_timeout=20.0, grace=4.0))
    story.tell(StopAsked("test"))
    story.fleet = story.fleet.with_worker(replace(story.fleet.workers[1], drain=None))
    story.fire(TimerKind.DRAIN, 1, after=[Reported(1, WorkerFigures(cut={"stream": 1}))])
    assert story.orders == [Terminate(1)]
    assert "connections.cut" not in story.news


@pytest.mark.parametrize("kind", ["stream", "websocket"])
def test_a_worker_with_a_stream_is_left_to_end_it(kind: str) -> None:
    """What may go on for longer than a request is waited for as long as it is there, and then as long as a request."""
    story = serving(1, policy=Policy(drain_timeout=20.0, drain_timeout_stream=300.0, grace=4.0))
    story.reload()
    story.ready(2)
    story.serve(2)
    began = story.now
    story.fire(TimerKind.DRAIN, 1, after=[Reported(1, WorkerFigures({kind: 1}))])
    assert (story.now, story.orders) == (began + 44.0, [])
    story.tell(Reported(1, WorkerFigures({"background": 1})))
    story.fire(TimerKind.DRAIN, 1)
    assert (story.now, story.orders) == (began + 68.0, [Terminate(1)])
    assert story.news == {"worker.overdue": {"worker": "1.1", "connections": {"background": 1}, **SAYS_NOTHING}}


def test_a_worker_that_says_to_have_a_stream_for_ever_is_not_believed() -> None:
    """Whatever a worker says, its drain ends when the longest time of its classes is over."""
    story = serving(1, policy=Policy(drain_timeout=20.0, drain_timeout_stream=100.0, grace=4.0))
    story.reload()
    story.ready(2)
    story.serve(2)
    began = story.now
    story.tell()
    while not story.orders:
        story.fire(TimerKind.DRAIN, 1, after=[Reported(1, WorkerFigures({"stream": 1}))])
    assert (story.now, story.orders) == (began + 104.0, [Terminate(1)])


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ([], 4.0),
        ([Spawned(3, 103), HelloSaid(3)], 9.0),
        ([Spawned(3, 103), HelloSaid(3), BecameReady(3)], 9.0),
    ],
)
def test_an_app_that_may_have_started_has_time_to_shut_down(said: list[Event], seconds: float) -> None:
    """A worker that boots is given longer to leave than one that was not heard of, since its app may have started."""
    story = serving(2, Policy(grace=4.0, shutdown_timeout=9.0))
    story.reload()
    story.tell(*said, StopAsked("test"))
    assert story.timers[Timer(TimerKind.TERM, 3)] == 60.0 + seconds


def test_a_replacement_that_does_not_accept_in_time_is_replaced() -> None:
    """In a generation that serves, too, a worker has a deadline to accept; its exit has its slot filled."""
    story = serving(1, policy=Policy(admit_timeout=2.0))
    story.die(1, age=60.0)
    story.ready(2)
    story.fire(TimerKind.ADMIT, 2)
    assert (story.now, story.orders) == (62.0, [BeginDrain(2, uniform(5.0), final=False, packet=64), Terminate(2)])
    story.die(2, age=11.0)
    assert story.waiting() == {1: 2}
    assert story.news["worker.died"]["why"] == "1.1 (pid 102) did not begin to accept within 2 s"


@pytest.mark.parametrize(("how", "told"), [("killed by SIGSEGV", True), ("exited 0", False)])
def test_a_worker_that_dies_while_it_drains_is_told(how: str, told: bool) -> None:
    """An old worker that crashes with what it still held is on the feed; one that leaves in order is not."""
    story = serving(1)
    story.tell(StopAsked("test"), Exited(1, how))
    lost = {"worker": "1.1", "why": f"1.1 (pid 101) {how}"}
    assert story.news.get("worker.lost") == (lost if told else None)


def test_a_worker_that_was_sent_away_may_leave_as_it_likes() -> None:
    """A worker that served no client and is ended has lost nothing, however it exits."""
    story = serving(1)
    story.reload()
    story.reload()
    story.tell(Exited(2, "killed by SIGTERM"))
    assert list(story.news) == ["generation.gone"]


@pytest.mark.parametrize("hurry", [1, 2])
def test_an_order_to_leave_is_given_again_when_the_process_exists(hurry: int) -> None:
    """A worker that was told to leave before its process existed could not hear it, and is told when it exists."""
    story = serving(1)
    story.die(1, age=60.0)
    story.tell(*[StopAsked("test", insist=True)] * hurry)
    order = Terminate(2) if hurry == 1 else Kill(2)
    assert order in story.orders
    story.tell(Spawned(2, 102))
    assert story.orders == [order]


def test_a_worker_that_never_came_to_be_is_not_missed() -> None:
    """A worker that was on its way out already and could not be started after all has left."""
    story = serving(1)
    story.die(1, age=60.0)
    story.tell(StopAsked("test"), SpawnFailed(2, "no memory"))
    assert story.orders[-1] == Exit(0)


# What has no place

OF_OTHERS = (
    TimerKind.RESPAWN,
    TimerKind.STOP,
    TimerKind.HOOK,
    TimerKind.HOOK_TERM,
    TimerKind.LEADER,
    TimerKind.STANDBY,
    TimerKind.GATE,
)
OF_A_WORKER = [kind for kind in TimerKind if kind not in OF_OTHERS]


@pytest.mark.parametrize("kind", OF_A_WORKER)
def test_a_timer_that_comes_late_is_refused(kind: TimerKind) -> None:
    """No timer is ever cancelled, so one whose time has passed finds its worker elsewhere and does nothing."""
    story = serving(1)
    with pytest.raises(Refused, match=rf"'{kind}' came late for 1\.1") as caught:
        story.tell(TimerFired(Timer(kind, 1)))
    assert caught.value.code == "out-of-order"


@pytest.mark.parametrize(
    ("said", "late"),
    [
        ([HelloSaid(2)], TimerKind.ADMIT),
        ([HelloSaid(2), BecameReady(2), BeganServing(2)], TimerKind.ADMIT),
        ([HelloSaid(2), BecameReady(2)], TimerKind.BOOT),
        ([], TimerKind.DRAIN),
        ([], TimerKind.TERM),
        ([StopAsked("test")], TimerKind.BOOT),
        ([StopAsked("test"), StopAsked("test", insist=True)], TimerKind.TERM),
    ],
)
def test_each_timer_has_its_state(said: list[Event], late: TimerKind) -> None:
    """A deadline holds only for the step that it was set for."""
    story = serving(1)
    story.die(1, age=60.0)
    story.tell(*said)
    with pytest.raises(Refused, match=f"'{late}' came late"):
        story.tell(TimerFired(Timer(late, 2)))


@pytest.mark.parametrize(
    "event",
    [
        Spawned(9, 1),
        SpawnFailed(9, "no"),
        HelloSaid(9),
        WorkerBootFailed(9, "import", "no"),
        BecameReady(9),
        BeganServing(9),
        Reported(9),
        ChannelLost(9, "no"),
        Exited(9, "exited 0"),
        *(TimerFired(Timer(kind, 9)) for kind in OF_A_WORKER),
    ],
)
def test_a_worker_that_is_not_known_is_refused(event: Event) -> None:
    """Word of a worker that has left, or never was, has no place."""
    with pytest.raises(Refused, match="no worker with serial 9") as caught:
        serving(1).tell(event)
    assert caught.value.code == "out-of-order"


@pytest.mark.parametrize(("generation", "slot"), [(1, 1), (1, 2), (2, 1)])
def test_a_slot_that_does_not_wait_is_not_filled(generation: int, slot: int) -> None:
    """The time to fill a slot may come when it is filled, or is there no more, or its generation is not."""
    with pytest.raises(Refused, match=rf"no vacancy {generation}\.{slot}") as caught:
        serving(1).tell(TimerFired(Timer(TimerKind.RESPAWN, generation, slot)))
    assert caught.value.code == "out-of-order"


def test_a_process_exists_once() -> None:
    """A worker that has a process is not given another one."""
    story = serving(1)
    with pytest.raises(Refused, match=r"worker 1\.1 was spawned already"):
        story.tell(Spawned(1, 7))
    assert story.fleet.workers[1].pid == 101


@pytest.mark.parametrize("event", [HelloSaid(1), BecameReady(1), BeganServing(1)])
def test_a_word_out_of_turn_is_refused(event: Event) -> None:
    """What a worker said already it cannot say again."""
    with pytest.raises(Refused) as caught:
        serving(1).tell(event)
    assert caught.value.code == "out-of-order"
