"""The slots of the generation that serves: they are filled, and their workers replaced."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain, Spawn, Terminate
from stillup.core.events import (
    ChannelLost,
    Exited,
    ReloadAsked,
    Reported,
    ScaleAsked,
    SpawnFailed,
    TookOver,
    WorkerBootFailed,
)
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.waiting import Vacancy
from stillup.core.worker_figures import WorkerFigures
from tests.core.rolling_story import drain
from tests.core.story import BESIDE, NEW, OLD, serving, spawn

# A worker dies


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
    """In a generation that serves, a READY worker is told to accept at once, whatever the others do."""
    story = serving(3)
    story.tell(Exited(1, "exited 1"), Exited(2, "exited 1"))
    story.ready(4)
    assert story.orders == [BeginAccept(4)]
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
    story.ready(2)
    story.serve(2)
    story.die(2, age=10.0)
    assert story.orders == [spawn(3, 1, 1)]
    story.die(3, age=1.0)
    assert story.news["worker.waits"]["deaths"] == 2


def test_one_that_never_served_was_young() -> None:
    """However long it took to boot: a slot whose workers hang until their deadline is filled later each time, too."""
    story = serving(1)
    story.die(1, age=1.0)
    story.fire(TimerKind.BOOT, 2)
    story.die(2, age=61.0)
    assert story.waiting() == {1: 2}


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
    """A failed reload leaves no trace: a worker that dies after it is replaced from the release that serves."""
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


# A worker is to be replaced


def test_a_worker_at_its_limit_is_replaced_before_it_leaves() -> None:
    """A worker that asks to be replaced serves on until another serves in its slot, and only then drains."""
    story = serving(2)
    story.tell(Reported(1, WorkerFigures({"idle": 3}, 1000), recycle="1000 requests"))
    assert story.orders == [spawn(3, 1, 1)]
    assert story.news == {"worker.worn": {"worker": "1.1", "why": "1000 requests"}}
    story.ready(3)
    assert story.orders == [BeginAccept(3)]
    story.serve(3)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=16)]
    assert story.workers() == {1: WorkerState.DRAINING, 2: WorkerState.SERVING, 3: WorkerState.SERVING}
    story.tell(Exited(1, "exited 0"))
    assert (story.orders, story.news) == ([], {})


def test_a_worker_at_its_limit_is_replaced_once() -> None:
    """A worker repeats with every report that it is to be replaced; one replacement and one announcement are enough."""
    story = serving(1)
    story.tell(Reported(1, recycle="old"))
    story.tell(Reported(1, recycle="old"))
    assert (story.orders, story.news) == ([], {})


def test_a_worker_that_asked_once_is_replaced() -> None:
    """A report that no longer gives a reason does not undo it."""
    story = serving(1)
    story.tell(Reported(1, recycle="old"), Reported(1))
    assert story.fleet.workers[1].recycle == "old"


def test_a_replacement_that_dies_is_replaced_in_its_turn() -> None:
    """A worker that is to be replaced goes on serving until another one does take its place."""
    story = serving(1)
    story.tell(Reported(1, recycle="old"), Exited(2, "exited 1"))
    assert story.orders == [spawn(2, 1, 1), spawn(3, 1, 1)]
    story.ready(3)
    story.serve(3)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64)]


def test_workers_are_replaced_one_at_a_time() -> None:
    """Of two workers the second has its turn when the first one's replacement serves; each leaves for its own."""
    story = serving(2)
    story.tell(Reported(1, recycle="old"), Reported(2, recycle="old"))
    assert story.orders == [spawn(3, 1, 1)]
    story.ready(3)
    assert story.orders == [BeginAccept(3)]
    story.serve(3)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=16), spawn(4, 1, 2)]
    story.ready(4)
    story.serve(4)
    assert story.orders == [BeginDrain(2, BESIDE, final=False, packet=16)]


def test_the_worker_that_has_waited_longest_is_replaced_next() -> None:
    """Turns go by when each asked to be replaced, not by slot."""
    story = serving(3)
    for serial in (2, 3, 1):
        story.now += 1.0
        story.tell(Reported(serial, recycle="old"))
    story.ready(4)
    story.serve(4)
    assert story.orders == [BeginDrain(2, BESIDE, final=False, packet=16), spawn(5, 1, 3)]


def test_a_replacement_that_dies_keeps_its_turn() -> None:
    """A replacement that dies young is tried again, after its back-off and before any other."""
    story = serving(2)
    story.tell(Reported(2, recycle="old"), Reported(1, recycle="old"))
    story.die(3, age=1.0)
    assert story.orders == [spawn(4, 1, 2)]
    story.die(4, age=1.0)
    assert story.orders == []
    assert story.news["worker.waits"] == {"worker": "1.2", "deaths": 2, "seconds": 1.5}
    story.tell(Reported(1, recycle="old"))
    assert story.orders == []
    story.fire(TimerKind.RESPAWN, 1, slot=2)
    assert story.orders == [spawn(5, 1, 2)]
    story.ready(5)
    story.serve(5)
    assert story.orders == [BeginDrain(2, BESIDE, final=False, packet=16), spawn(6, 1, 1)]


def test_a_replacement_that_fails_holds_its_turn_until_its_exit() -> None:
    """Between the word that a replacement cannot serve and its exit, no other worker's replacement begins."""
    story = serving(2)
    story.tell(Reported(1, recycle="old"), WorkerBootFailed(3, "import", "no"), Reported(2, recycle="old"))
    assert story.orders == [spawn(3, 1, 1), Terminate(3)]
    story.tell(Exited(3, "exited 1"))
    assert story.orders == [spawn(4, 1, 1)]
    assert story.workers()[1] is WorkerState.SERVING


def test_a_worker_that_dies_while_it_waits_to_be_replaced_is_replaced_at_once() -> None:
    """Whose turn it is does not matter to a slot in which no worker serves any more."""
    story = serving(2)
    story.tell(Reported(1, recycle="old"), Reported(2, recycle="old"))
    story.die(2, age=90.0)
    assert story.orders == [spawn(4, 1, 2)]
    story.die(1, age=95.0)
    assert story.orders == [], "the worker that was to replace it takes its slot"


def test_a_worker_that_dies_before_its_replacement_serves_frees_the_turn() -> None:
    """When the worker whose replacement is on its way dies, the next one has its turn."""
    story = serving(2)
    story.tell(Reported(1, recycle="old"), Reported(2, recycle="old"))
    story.die(1, age=90.0)
    assert story.orders == [spawn(4, 1, 2)]


@pytest.mark.parametrize("lost", [False, True])
def test_a_slot_that_is_empty_does_not_wait_for_a_replacements_time(lost: bool) -> None:
    """A replacement's back-off ends with the life of the worker it was for; the row of young deaths is remembered."""
    story = serving(1)
    story.tell(Reported(1, recycle="old"))
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
    """A death in one slot leaves the back-off of another slot's replacement as it is."""
    story = serving(2)
    story.tell(Reported(1, recycle="old"))
    story.die(3, age=1.0)
    story.die(4, age=1.0)
    story.die(2, age=90.0)
    assert story.orders == [spawn(5, 1, 2)]
    assert story.waiting() == {1: 2}


def test_a_worker_at_its_limit_young_is_replaced_later_each_time() -> None:
    """A limit that every worker exceeds from its start costs a new worker now and then, and no service."""
    story = serving(1)
    story.tell(Reported(1, recycle="rss"))
    for serial, seconds in ((2, 0.0), (3, 0.0), (4, 1.5), (5, 2.25)):
        if seconds:
            assert story.orders == []
            fast = {"worker": "1.1", "why": "rss", "times": serial - 2, "seconds": seconds}
            assert story.news["worker.wears-fast"] == fast
            story.fire(TimerKind.RESPAWN, 1, slot=1)
        assert [order for order in story.orders if isinstance(order, Spawn)] == [spawn(serial, 1, 1)]
        story.ready(serial)
        story.serve(serial)
        assert story.orders == [BeginDrain(serial - 1, BESIDE, final=False, packet=64)]
        story.now += 1.0
        story.tell(Reported(serial, recycle="rss"))
    assert story.workers()[5] is WorkerState.SERVING


def test_a_worker_at_its_limit_in_its_time_ends_the_row() -> None:
    """After a worker that lived its time, the next is replaced at once, and its early death is the first of a row."""
    story = serving(1)
    story.tell(Reported(1, recycle="old"))
    story.ready(2)
    story.serve(2)
    story.now += 20.0
    story.tell(Reported(2, recycle="old"))
    assert story.orders == [spawn(3, 1, 1)]
    assert story.fleet.workers[3].deaths == 0


def test_a_worker_at_its_limit_before_it_serves_has_its_turn_when_it_does() -> None:
    """A worker that says so while it boots is not replaced before it has taken over."""
    story = serving(1)
    story.tell(ScaleAsked(2))
    story.ready(2)
    story.tell(Reported(2, recycle="old"))
    assert (story.orders, list(story.news)) == ([], ["worker.worn"])
    story.serve(2)
    assert story.orders == [spawn(3, 1, 2)]


def test_a_worker_that_leaves_anyway_is_not_to_be_replaced() -> None:
    """A worker that drains may reach its limits on its way out; that is not told."""
    story = serving(2)
    story.tell(ScaleAsked(1))
    story.tell(Reported(2, recycle="old"))
    assert (story.orders, story.news) == ([], {})
    assert story.fleet.workers[2].recycle == ""


def test_fewer_slots_free_the_turn() -> None:
    """When the slot whose worker is being replaced is given up, the next one has its turn."""
    story = serving(2)
    story.tell(Reported(2, recycle="old"), Reported(1, recycle="old"))
    story.tell(ScaleAsked(1))
    assert story.orders == [BeginDrain(2, BESIDE, final=False, packet=64), Terminate(3), spawn(4, 1, 1)]


def test_a_report_is_kept_as_the_workers_figures() -> None:
    """What a worker last said of its connections and requests is what is known of it."""
    story = serving(1)
    story.tell(Reported(1, WorkerFigures({"idle": 1}, 5)), Reported(1, WorkerFigures({"stream": 2, "idle": 1}, 9)))
    worker = story.fleet.workers[1]
    assert (worker.figures, worker.recycle) == (WorkerFigures({"stream": 2, "idle": 1}, 9), "")
    assert (story.orders, story.news) == ([], {})


def test_one_that_is_replaced_leaves_though_a_slot_waits() -> None:
    """Beside a canary: while it lives there is no room for a worker in the slot that waits; as many serve as before."""
    story = serving(4, Policy(strategy=Strategy(StrategyKind.CANARY)))
    for serial in (4, 5):
        story.die(serial, age=1.0)
    assert story.waiting() == {4: 2}
    story.tell(Reported(1, recycle="old"))
    assert story.orders == [spawn(6, 1, 1, OLD)]
    story.reload()
    assert story.orders == [spawn(7, 2, 1, NEW)]
    story.ready(6)
    story.serve(6)
    assert drain(1, packet=16) in story.orders
    story.exit(1)
    story.fire(TimerKind.RESPAWN, 1, 4)
    assert story.orders == [spawn(8, 1, 4, OLD)]
