"""A worker's life, told as stories: it dies, wears out, loses its channel, or does not leave when it should."""

from __future__ import annotations

import pytest

from supervisor.core.commands import Accept, BeginDrain, Exit, Kill, Spawn, Terminate
from supervisor.core.events import (
    BecameReady,
    BeganServing,
    BootFailed,
    ChannelLost,
    Event,
    Exited,
    HelloSaid,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    SpawnFailed,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
    TookOver,
)
from supervisor.core.model import Failure, Policy, Vacancy, WorkerState
from supervisor.errors import Refused
from tests.core.telling import NEW, OLD, serving, spawn

# It dies


def test_a_worker_that_dies_is_replaced_at_once() -> None:
    """The slot of a worker that dies is filled in the same breath, and its last words are told."""
    story = serving(2)
    story.die(2, age=90.0)
    assert story.orders == [spawn(3, 1, 2)]
    why = "1.2 (pid 102) killed by SIGSEGV"
    died = {"worker": "1.2", "pid": 102, "why": why, "message": "", "output": "core dumped"}
    assert story.news == {"worker.died": died}
    assert story.timers[Timer(TimerKind.BOOT, 3)] == 150.0


def test_a_replacement_serves_without_waiting_for_anybody() -> None:
    """In a generation that serves, a READY worker is told to accept at once, whatever its fellows do."""
    story = serving(3)
    story.tell(Exited(1, "exited 1"), Exited(2, "exited 1"))
    story.ready(4)
    assert story.orders == [Accept(4)]
    story.serve(4)
    assert story.news == {"worker.serving": {"worker": "1.1", "pid": 104}}
    assert story.workers() == {3: WorkerState.SERVING, 4: WorkerState.SERVING, 5: WorkerState.SPAWNED}


def test_a_slot_that_dies_young_again_and_again_waits_longer_each_time() -> None:
    """The first young death costs no wait; each one after it costs more, and the row is remembered across the wait."""
    story = serving(1)
    story.die(1, age=90.0)
    story.die(2, age=1.0)
    assert story.orders == []
    assert story.news["worker.waits"] == {"worker": "1.1", "deaths": 2, "seconds": 1.5}
    assert story.timers[Timer(TimerKind.RESPAWN, 1, 1)] == 92.5
    story.fire(TimerKind.RESPAWN, 1, slot=1)
    assert story.orders == [spawn(3, 1, 1)]
    assert story.waiting() == {}
    story.die(3, age=9.0)
    assert story.news["worker.waits"] == {"worker": "1.1", "deaths": 3, "seconds": 2.25}


def test_a_slot_that_waits_has_its_whole_wait_after_a_take_over() -> None:
    """A new supervisor lets all clocks start anew: the slot waits as long as it would have from the death on."""
    story = serving(1)
    story.die(1, age=90.0)
    story.die(2, age=1.0)
    story.now += 1.0
    story.tell(TookOver(frozenset()))
    assert story.timers[Timer(TimerKind.RESPAWN, 1, 1)] == 93.5
    assert story.fleet.generations[1].vacancies == {1: Vacancy(2, 93.5)}


def test_a_worker_that_lived_a_while_ends_the_row() -> None:
    """After a worker that was not young, the slot is filled at once again."""
    story = serving(1)
    story.die(1, age=1.0)
    story.die(2, age=10.0)
    assert story.orders == [spawn(3, 1, 1)]
    story.die(3, age=1.0)
    assert story.news["worker.waits"]["deaths"] == 2


def test_each_slot_waits_for_itself() -> None:
    """A slot that waits for its next start leaves the others as they are, and theirs leave it waiting."""
    story = serving(2)
    story.die(1, age=60.0)
    story.die(3, age=1.0)
    story.die(2, age=62.0)
    assert story.orders == [spawn(4, 1, 2)]
    assert story.waiting() == {1: 2}
    story.die(4, age=1.0)
    assert story.waiting() == {1: 2, 2: 2}


def test_a_slot_is_filled_from_the_release_that_serves() -> None:
    """A failed reload leaves no trace: who dies after it is replaced from the release that serves."""
    story = serving(1)
    story.tell(ReloadAsked(NEW, "test"), SpawnFailed(2, "no such file"))
    story.die(1, age=90.0)
    assert story.orders == [spawn(3, 1, 1)]


def test_a_death_during_a_rollout_is_made_good() -> None:
    """While a new generation boots, the old one's slots are still filled; at the cut-over the replacement is ended."""
    story = serving(1)
    story.tell(ReloadAsked(OLD, "test"))
    story.die(1, age=70.0)
    assert story.orders == [spawn(3, 1, 1)]
    story.ready(2)
    story.serve(2)
    assert Terminate(3) in story.orders


# It wears out


def test_a_worn_worker_is_replaced_before_it_leaves() -> None:
    """A worker that asks to be replaced serves on until another serves in its slot, and only then drains."""
    story = serving(2)
    story.tell(Reported(1, {"idle": 3}, 1000, worn="1000 requests"))
    assert story.orders == [spawn(3, 1, 1)]
    assert story.news == {"worker.worn": {"worker": "1.1", "why": "1000 requests"}}
    story.ready(3)
    assert story.orders == [Accept(3)]
    story.serve(3)
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=16)]
    assert story.workers() == {1: WorkerState.DRAINING, 2: WorkerState.SERVING, 3: WorkerState.SERVING}
    story.tell(Exited(1, "exited 0"))
    assert (story.orders, story.news) == ([], {})


def test_a_worn_worker_is_replaced_once() -> None:
    """A worker repeats with every report that it is worn; one replacement and one announcement are enough."""
    story = serving(1)
    story.tell(Reported(1, worn="old"))
    story.tell(Reported(1, worn="old"))
    assert (story.orders, story.news) == ([], {})


def test_a_worn_worker_stays_worn() -> None:
    """A report that no longer says so does not undo that a worker is worn."""
    story = serving(1)
    story.tell(Reported(1, worn="old"), Reported(1))
    assert story.fleet.workers[1].worn == "old"


def test_a_replacement_that_dies_is_replaced_in_its_turn() -> None:
    """A worn worker goes on serving until somebody does take its place."""
    story = serving(1)
    story.tell(Reported(1, worn="old"), Exited(2, "exited 1"))
    assert story.orders == [spawn(2, 1, 1), spawn(3, 1, 1)]
    story.ready(3)
    story.serve(3)
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=64)]


def test_worn_workers_are_replaced_one_at_a_time() -> None:
    """Of two worn workers the second has its turn when the first one's heir serves; each leaves for its own."""
    story = serving(2)
    story.tell(Reported(1, worn="old"), Reported(2, worn="old"))
    assert story.orders == [spawn(3, 1, 1)]
    story.ready(3)
    assert story.orders == [Accept(3)]
    story.serve(3)
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=16), spawn(4, 1, 2)]
    story.ready(4)
    story.serve(4)
    assert story.orders == [BeginDrain(2, 30.0, final=False, packet=16)]


def test_who_has_been_worn_longest_comes_next() -> None:
    """Turns go by when each said that it was worn, not by slot."""
    story = serving(3)
    for serial in (2, 3, 1):
        story.now += 1.0
        story.tell(Reported(serial, worn="old"))
    story.ready(4)
    story.serve(4)
    assert story.orders == [BeginDrain(2, 30.0, final=False, packet=16), spawn(5, 1, 3)]


def test_an_heir_that_dies_keeps_its_turn() -> None:
    """An heir that dies young is tried again, after its back-off and before any other: the death is not forgotten."""
    story = serving(2)
    story.tell(Reported(2, worn="old"), Reported(1, worn="old"))
    story.die(3, age=1.0)
    assert story.orders == [spawn(4, 1, 2)]
    story.die(4, age=1.0)
    assert story.orders == []
    assert story.news["worker.waits"] == {"worker": "1.2", "deaths": 2, "seconds": 1.5}
    story.tell(Reported(1, worn="old"))
    assert story.orders == []
    story.fire(TimerKind.RESPAWN, 1, slot=2)
    assert story.orders == [spawn(5, 1, 2)]
    story.ready(5)
    story.serve(5)
    assert story.orders == [BeginDrain(2, 30.0, final=False, packet=16), spawn(6, 1, 1)]


def test_an_heir_that_fails_holds_its_turn_until_its_exit() -> None:
    """Between the word that an heir cannot serve and its exit, nobody else's replacement begins."""
    story = serving(2)
    story.tell(Reported(1, worn="old"), BootFailed(3, "import", "no"), Reported(2, worn="old"))
    assert story.orders == [spawn(3, 1, 1), Terminate(3)]
    story.tell(Exited(3, "exited 1"))
    assert story.orders == [spawn(4, 1, 1)]
    assert story.workers()[1] is WorkerState.SERVING


def test_a_worn_worker_that_dies_is_replaced_at_once() -> None:
    """Whose turn it is does not matter to a slot in which nobody serves any more."""
    story = serving(2)
    story.tell(Reported(1, worn="old"), Reported(2, worn="old"))
    story.die(2, age=90.0)
    assert story.orders == [spawn(4, 1, 2)]
    story.die(1, age=95.0)
    assert story.orders == [], "its heir is its replacement"


def test_a_worn_worker_that_dies_frees_the_turn() -> None:
    """When the worker whose heir is on its way dies, the next worn one has its turn."""
    story = serving(2)
    story.tell(Reported(1, worn="old"), Reported(2, worn="old"))
    story.die(1, age=90.0)
    assert story.orders == [spawn(4, 1, 2)]


@pytest.mark.parametrize("lost", [False, True])
def test_a_slot_that_is_empty_does_not_wait_for_an_heirs_time(lost: bool) -> None:
    """An heir's back-off ends with the life of the worker it was for; the row of young deaths is remembered."""
    story = serving(1)
    story.tell(Reported(1, worn="old"))
    story.die(2, age=1.0)
    story.die(3, age=1.0)
    assert story.waiting() == {1: 2}
    story.tell(ChannelLost(1, "garbage") if lost else Exited(1, "killed by SIGSEGV"))
    assert story.orders[-1] == spawn(4, 1, 1)
    assert story.waiting() == {}
    story.die(4, age=1.0)
    assert story.news["worker.waits"]["deaths"] == 3
    if lost:
        story.tell(Exited(1, "exited 0"))
        assert story.orders == [], "one that could be told nothing has died once"


def test_another_death_does_not_cut_a_wait_short() -> None:
    """Who dies in one slot leaves the back-off of another slot's heir as it is."""
    story = serving(2)
    story.tell(Reported(1, worn="old"))
    story.die(3, age=1.0)
    story.die(4, age=1.0)
    story.die(2, age=90.0)
    assert story.orders == [spawn(5, 1, 2)]
    assert story.waiting() == {1: 2}


def test_who_wears_out_young_is_replaced_later_each_time() -> None:
    """A limit that every worker exceeds from its start costs a new worker now and then, and nobody's service."""
    story = serving(1)
    story.tell(Reported(1, worn="rss"))
    for serial, seconds in ((2, 0.0), (3, 0.0), (4, 1.5), (5, 2.25)):
        if seconds:
            assert story.orders == []
            fast = {"worker": "1.1", "why": "rss", "times": serial - 2, "seconds": seconds}
            assert story.news["worker.wears-fast"] == fast
            story.fire(TimerKind.RESPAWN, 1, slot=1)
        assert [order for order in story.orders if isinstance(order, Spawn)] == [spawn(serial, 1, 1)]
        story.ready(serial)
        story.serve(serial)
        assert story.orders == [BeginDrain(serial - 1, 30.0, final=False, packet=64)]
        story.now += 1.0
        story.tell(Reported(serial, worn="rss"))
    assert story.workers()[5] is WorkerState.SERVING


def test_who_is_worn_in_its_time_ends_the_row() -> None:
    """After a worker that lived its time, the next is replaced at once, and an early death of the heir is the first."""
    story = serving(1)
    story.tell(Reported(1, worn="old"))
    story.ready(2)
    story.serve(2)
    story.now += 20.0
    story.tell(Reported(2, worn="old"))
    assert story.orders == [spawn(3, 1, 1)]
    assert story.fleet.workers[3].deaths == 0


def test_who_is_worn_before_it_serves_has_its_turn_when_it_does() -> None:
    """A worker that says so while it boots is not replaced before it has taken over."""
    story = serving(1)
    story.tell(ScaleAsked(2))
    story.ready(2)
    story.tell(Reported(2, worn="old"))
    assert (story.orders, list(story.news)) == ([], ["worker.worn"])
    story.serve(2)
    assert story.orders == [spawn(3, 1, 2)]


def test_who_leaves_anyway_is_not_worn() -> None:
    """A worker that drains may reach its limits on its way out; nobody needs to hear of it."""
    story = serving(2)
    story.tell(ScaleAsked(1))
    story.tell(Reported(2, worn="old"))
    assert (story.orders, story.news) == ([], {})
    assert story.fleet.workers[2].worn == ""


def test_fewer_slots_free_the_turn() -> None:
    """When the slot that is being renewed is given up, the next worn worker has its turn."""
    story = serving(2)
    story.tell(Reported(2, worn="old"), Reported(1, worn="old"))
    story.tell(ScaleAsked(1))
    assert story.orders == [BeginDrain(2, 30.0, final=False, packet=64), Terminate(3), spawn(4, 1, 1)]


def test_a_report_is_kept_as_the_workers_figures() -> None:
    """What a worker last said of its connections and requests is what is known of it."""
    story = serving(1)
    story.tell(Reported(1, {"idle": 1}, 5), Reported(1, {"stream": 2, "idle": 1}, 9))
    worker = story.fleet.workers[1]
    assert (worker.connections, worker.requests, worker.worn) == ({"stream": 2, "idle": 1}, 9, "")
    assert (story.orders, story.news) == ([], {})


# It loses its channel


def test_a_worker_that_cannot_be_told_anything_is_replaced() -> None:
    """A serving worker whose channel is lost is to drain as soon as it comes back, and is replaced at once."""
    story = serving(1, policy=Policy(drain_timeout=20.0, grace=4.0))
    story.tell(ChannelLost(1, "broke the protocol"))
    assert story.orders == [Spawn(2, 1, 1, OLD, 60.0, 20.0)]
    assert story.timers[Timer(TimerKind.DRAIN, 1)] == 84.0
    assert story.fleet.workers[1].state is WorkerState.DRAINING
    assert story.fleet.workers[1].failure == Failure("channel", "broke the protocol")


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


def test_a_worker_that_does_not_end_its_drain_is_sent_away() -> None:
    """Past its drain's deadline a worker gets SIGTERM and what it still held is told; past that one's, SIGKILL."""
    story = serving(1, policy=Policy(drain_timeout=20.0, grace=4.0))
    story.tell(Reported(1, {"in-progress": 2}), StopAsked("test"))
    story.fire(TimerKind.DRAIN, 1)
    assert (story.now, story.orders) == (84.0, [Terminate(1)])
    assert story.news == {"worker.overdue": {"worker": "1.1", "connections": {"in-progress": 2}}}
    story.fire(TimerKind.TERM, 1)
    assert (story.now, story.orders) == (88.0, [Kill(1)])
    assert story.news == {"worker.killed": {"worker": "1.1", "connections": {"in-progress": 2}}}
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.orders == [Exit(0)]


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
    assert (story.now, story.orders) == (62.0, [BeginDrain(2, 5.0, final=False, packet=64), Terminate(2)])
    story.die(2, age=11.0)
    assert story.orders == [spawn(3, 1, 1)]
    assert story.news["worker.died"]["why"] == "1.1 (pid 102) did not begin to accept within 2 s"


@pytest.mark.parametrize(("how", "told"), [("killed by SIGSEGV", True), ("exited 0", False)])
def test_a_worker_that_dies_while_it_drains_is_told(how: str, told: bool) -> None:
    """An old worker that crashes with what it still held is on the feed; one that leaves in order is not."""
    story = serving(1)
    story.tell(StopAsked("test"), Exited(1, how))
    lost = {"worker": "1.1", "why": f"1.1 (pid 101) {how}"}
    assert story.news.get("worker.lost") == (lost if told else None)


def test_a_worker_that_was_sent_away_may_leave_as_it_likes() -> None:
    """A worker that served nobody and is ended has lost nothing, however it exits."""
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


@pytest.mark.parametrize("kind", [kind for kind in TimerKind if kind is not TimerKind.RESPAWN])
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
        BootFailed(9, "import", "no"),
        BecameReady(9),
        BeganServing(9),
        Reported(9),
        ChannelLost(9, "no"),
        Exited(9, "exited 0"),
        *(TimerFired(Timer(kind, 9)) for kind in TimerKind if kind is not TimerKind.RESPAWN),
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
