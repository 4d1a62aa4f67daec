"""A fleet in the status of the control API: generations, workers, slots, what moved."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import asdict

from stillup.core.crossing import Crossed
from stillup.core.events import (
    BeganServing,
    Exited,
    HeartbeatsDue,
    ReloadAsked,
    Reported,
    Spawned,
    StopAsked,
    TimerFired,
)
from stillup.core.model import Fleet
from stillup.core.policy import Timer, TimerKind
from stillup.core.states import Birth
from stillup.core.worker_figures import Answers, Leadership, WorkerFigures
from stillup.wire.api_shapes import (
    GenerationView,
    ListenerView,
    OutcomeView,
    Status,
    VacancyView,
    WorkerView,
)
from stillup.wire.crossing_view import CrossingView
from tests.core.story import standing_by
from tests.wire.example_fleets import (
    NEW,
    aborted,
    after,
    booting,
    come,
    draining,
    look,
    serving,
    show,
)


def test_a_service_that_serves() -> None:
    """The status names the service, where it listens, and every worker with what it does."""
    fleet = after(serving(), (3.0, Reported(1, WorkerFigures({"idle": 2, "stream": 1, "background": 4}, 7))))
    assert look(fleet, 10.0) == Status(
        name="shop",
        version="1.0",
        pid=42,
        reexecs=7,
        state="serving",
        listeners=[ListenerView("web", "127.0.0.1:8000"), ListenerView("admin", "unix:/run/admin.sock")],
        generations=[
            GenerationView(
                id=1,
                state="serving",
                release="srv/old",
                workers=[
                    WorkerView(
                        id="1.1",
                        pid=101,
                        state="serving",
                        connections=3,
                        requests=7,
                        classes={"idle": 2, "stream": 1, "background": 4},
                        age=10.0,
                    ),
                    WorkerView(id="1.2", pid=102, state="serving", connections=0, age=10.0),
                ],
            )
        ],
        crossing=CrossingView(given=0, adopted=0, waiting=3, lost=0, closed=0, capacity=278, longest=0.0),
        rollout=show(fleet, 1, 10.0),
        outcomes=[OutcomeView("succeeded", 8.0, 1, 1, "srv/old", "first", "", "")],
    )


def test_how_processes_came_to_be() -> None:
    """Of each worker; of a rollout all ways that its workers have, until none of them is left."""
    born = (Spawned(3, 103, birth=Birth.FORKED_WARM), Spawned(4, 104, birth=Birth.SPAWNED))
    fleet = after(serving(), (10.0, ReloadAsked(NEW, "again")), *((11.0, event) for event in born))
    assert [worker.birth for worker in look(fleet, 12.0).generations[1].workers] == ["forked warm", "spawned"]
    assert show(fleet, 2, 12.0).births == ["forked warm", "spawned"]
    assert show(fleet, 1, 12.0).births == [], "nothing was said of them"


def test_the_crossing_is_that_of_the_dead_and_of_the_living() -> None:
    """What moved is added up over the workers that are there and those that are gone, and does not fall by a death."""
    fleet = after(
        draining(),
        (14.0, Reported(1, WorkerFigures(crossed=Crossed(given=5, closed=2)))),
        (14.0, Reported(2, WorkerFigures(crossed=Crossed(given=3, closed=1)))),
        (14.0, Reported(3, WorkerFigures(crossed=Crossed(adopted=7, lost=1, longest=0.25)))),
    )
    shown = CrossingView(given=8, adopted=7, waiting=3, lost=1, closed=3, capacity=278, longest=0.25)
    assert look(fleet, 15.0).crossing == shown
    fleet = after(fleet, (16.0, Exited(1, "exited 0")))
    assert look(fleet, 17.0).crossing == shown


def test_every_figure_is_shown() -> None:
    """A worker's view has each of its figures, under the figure's own name."""
    answers = Answers(1, (7, *[0] * 13), (2, *[0] * 13))
    figures = WorkerFigures({"idle": 2}, 7, {"idle": 1.5}, Crossed(1, 2, 3, 4, 0.5), answers=answers)
    shown = look(after(serving(), (3.0, Reported(1, figures))), 3.0).generations[0].workers[0]
    assert {name: getattr(shown, name) for name in asdict(figures)} == {
        name: getattr(figures, name) for name in asdict(figures)
    }
    encoded = msgspec.json.decode(msgspec.json.encode(shown))
    assert msgspec.json.decode(msgspec.json.encode(figures)).items() <= encoded.items()


def test_how_long_a_draining_worker_has_held_each_class() -> None:
    """The age of the oldest connection of each class goes on between two reports."""
    fleet = after(draining(), (20.0, Reported(1, WorkerFigures({"stream": 1}, oldest={"stream": 6.0}))))
    assert look(fleet, 23.0).generations[0].workers[0].oldest == {"stream": 9.0}


def test_a_slot_that_waits_is_shown() -> None:
    """A slot whose workers die young tells how many in a row, and how long until the next start; never less than 0."""
    died = [Exited(serial, "exited 1") for serial in (1, 3, 4)]
    fleet = after(serving(), (3.0, died[0]), (4.0, died[1]), (6.0, TimerFired(Timer(TimerKind.RESPAWN, 1, 1))))
    fleet = after(fleet, (7.0, died[2]))
    assert look(fleet, 8.0).generations[0].waiting == [VacancyView("1.1", 3, 1.25)]
    assert look(fleet, 80.0).generations[0].waiting == [VacancyView("1.1", 3, 0.0)]


def test_a_slot_whose_worker_wears_out_young_is_shown() -> None:
    """Who serves there is shown beside the wait for its replacement, with what it is worn for."""
    fleet = after(serving(), (3.0, Reported(1, recycle="rss")), *come(3, 3.0), (3.0, BeganServing(3)))
    fleet = after(fleet, (4.0, Reported(3, recycle="rss")))
    shown = look(fleet, 4.0).generations[0]
    assert shown.waiting == [VacancyView("1.1", 2, 1.5, "rss")]
    assert [(w.id, w.state, w.worn) for w in shown.workers] == [
        ("1.1", "draining", "rss"),
        ("1.1", "serving", "rss"),
        ("1.2", "serving", ""),
    ]


def test_a_worker_that_hangs_is_shown() -> None:
    """From when it is found to hang until it is heard again, a worker tells for how long nothing was heard of it."""
    fleet = after(serving(), (50.0, Reported(2)), (63.0, HeartbeatsDue(63.0)))
    shown = look(fleet, 70.0).generations[0].workers
    assert [(w.id, w.hung_for, w.worn) for w in shown] == [
        ("1.1", 68.0, "no word for 61 s (--hang-timeout)"),
        ("1.1", None, ""),
        ("1.2", None, ""),
    ]
    fleet = after(fleet, (71.0, Reported(1)))
    assert look(fleet, 72.0).generations[0].workers[0].hung_for is None


def test_generations_are_shown_in_their_order() -> None:
    """The old generation comes before the new one, and tells for how long it has drained."""
    shown = look(draining(), 20.0).generations
    assert [(g.id, g.state, g.draining_for) for g in shown] == [(1, "draining", 7.0), (2, "serving", None)]
    assert [[(w.id, w.age) for w in g.workers] for g in shown] == [
        [("1.1", 20.0), ("1.2", 20.0)],
        [("2.1", 10.0), ("2.2", 10.0)],
    ]


@pytest.mark.parametrize(
    ("fleet", "number"),
    [(booting(), 2), (draining(), 2), (aborted(), 2), (after(aborted(), (13.0, ReloadAsked(NEW, "again"))), 3)],
)
def test_the_rollout_under_way_is_shown_or_else_the_last(fleet: Fleet, number: int) -> None:
    """A status shows what goes on, and when nothing does, what happened last."""
    shown = look(fleet, 20.0)
    assert shown.rollout == show(fleet, number, 20.0)


def test_a_supervisor_that_was_asked_for_nothing_has_no_rollout() -> None:
    """Before the first request there is nothing to show, and after a stop nothing serves."""
    empty = look(Fleet(), 0.0)
    assert (empty.state, empty.generations, empty.rollout) == ("starting", [], None)
    assert look(after(serving(), (5.0, StopAsked("test"))), 6.0).state == "stopping"


def test_who_leads() -> None:
    """The worker that was told to, once it says that it does; not one that merely says so."""
    fleet = after(
        serving(),
        (3.0, Reported(1, WorkerFigures(leadership=Leadership(wants=True)))),
        (4.0, Reported(2, WorkerFigures(leadership=Leadership(wants=True, leads=True)))),
    )
    assert [worker.leader for worker in look(fleet, 10.0).generations[0].workers] == [False, False]
    fleet = after(fleet, (5.0, Reported(1, WorkerFigures(leadership=Leadership(wants=True, leads=True)))))
    assert [worker.leader for worker in look(fleet, 10.0).generations[0].workers] == [True, False]


def test_a_standby() -> None:
    """How long it lasts, in the generation and in the rollout that it was replaced by."""
    story = standing_by()
    story.now += 40.0
    story.tell(Reported(1, WorkerFigures(classes={"stream": 2})))
    seen = look(story.fleet, story.now)
    assert [(one.state, one.standby_left) for one in seen.generations] == [("standby", 60.0), ("serving", None)]
    assert seen.rollout is not None
    assert (seen.rollout.standby_left, seen.rollout.drains, seen.rollout.state) == (60.0, {"stream": 2}, "draining")
