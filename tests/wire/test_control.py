"""How the fleet is shown by the control API, phase by phase of a reload."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from supervisor.core.crossing import Crossed
from supervisor.core.events import (
    BeatsDue,
    BecameReady,
    BeganServing,
    BootFailed,
    Event,
    Exited,
    HelloSaid,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
)
from supervisor.core.model import Fleet, Policy, Release
from supervisor.core.step import step
from supervisor.wire.control import (
    PROBLEM,
    PROBLEM_TYPE,
    CrossingView,
    FailureView,
    GenerationView,
    ListenerView,
    Problem,
    RolloutView,
    ScalingView,
    Status,
    VacancyView,
    WorkerView,
    rollout,
    scaling,
    status,
    without_output,
)
from supervisor.wire.handoff import ListenerInfo

OLD = Release(app="app:app", python="/usr/bin/python3", directory="/srv/old", label="srv/old")
NEW = replace(OLD, directory="/srv/new", label="srv/new")
LISTENERS = (ListenerInfo("web", 2, "127.0.0.1:8000"), ListenerInfo("admin", 1, "unix:/run/admin.sock"))


def after(fleet: Fleet, *events: tuple[float, Event]) -> Fleet:
    """What the fleet becomes when these happen at these times."""
    for now, event in events:
        fleet = step(fleet, event, now).fleet
    return fleet


def come(serial: int, now: float) -> list[tuple[float, Event]]:
    """A worker's way to READY."""
    return [(now, Spawned(serial, 100 + serial)), (now, HelloSaid(serial)), (now, BecameReady(serial, "GET / 200"))]


def serving() -> Fleet:
    """Two workers of generation 1 serve since second 2."""
    fleet = after(Fleet(size=2, policy=Policy(drain_timeout=30.0)), (0.0, ReloadAsked(OLD, "first")))
    return after(fleet, *come(1, 1.0), *come(2, 1.0), (2.0, BeganServing(1)), (2.0, BeganServing(2)))


def booting() -> Fleet:
    """A reload was asked for at second 10, and one of its two workers is READY."""
    return after(serving(), (10.0, ReloadAsked(NEW, "asked by uid 0, pid 7")), *come(3, 11.0))


def cutting_over() -> Fleet:
    """Both are READY since second 12; one of them serves."""
    return after(booting(), *come(4, 12.0), (12.5, BeganServing(3)))


def draining() -> Fleet:
    """Both serve since second 13; the old ones still have clients."""
    return after(
        cutting_over(),
        (13.0, BeganServing(4)),
        (14.0, Reported(1, {"in-progress": 2, "stream": 1, "background": 4}, 50)),
        (14.0, Reported(2, {"in-progress": 1}, 60)),
    )


def aborted() -> Fleet:
    """The second new worker could not import the app, and was gone at second 12."""
    return after(
        booting(),
        (10.5, Spawned(4, 104)),
        (11.0, HelloSaid(4)),
        (11.0, BootFailed(4, "import", "no module named app")),
        (12.0, Exited(4, "exited 1", "Traceback")),
    )


def show(fleet: Fleet, number: int, now: float) -> RolloutView:
    known = fleet.rollout(number)
    assert known is not None
    return rollout(fleet, known, now)


def look(fleet: Fleet, now: float) -> Status:
    return status(fleet, name="shop", version="1.0", pid=42, infos=LISTENERS, waiting=3, capacity=278, now=now)


BOOTING = RolloutView(
    id=2,
    state="booting",
    outcome=None,
    why="asked by uid 0, pid 7",
    generation=2,
    previous=1,
    release="srv/new",
    previous_release="srv/old",
    workers_wanted=2,
    workers_ready=1,
    probe="",
    booting_for=1.5,
    cut_over_took=None,
    total=1.5,
    reason="",
    failure=None,
    drains={},
    drain_left=None,
)
"""The reload of ``booting`` as it is shown at second 11.5."""


def test_a_rollout_that_boots() -> None:
    """While workers boot, the view tells how many are ready and how long it has taken; nothing has an end yet."""
    assert show(booting(), 2, 11.5) == BOOTING


def test_nothing_drains_before_the_cut_over() -> None:
    """What the old generation holds while it still serves is nothing that a rollout waits for."""
    fleet = after(booting(), (11.0, Reported(1, {"in-progress": 2}, 5)))
    assert show(fleet, 2, 11.5) == BOOTING


def test_a_rollout_that_cuts_over() -> None:
    """Once all are READY the boot's time stands still; workers that were told to accept still count as ready."""
    assert show(cutting_over(), 2, 12.75) == msgspec.structs.replace(
        BOOTING, state="cutting-over", workers_ready=2, probe="GET / 200", booting_for=2.0, total=2.75
    )


def test_a_rollout_whose_old_generation_drains() -> None:
    """From its cut-over on, a rollout has succeeded; what the old generation still holds is added up by class."""
    assert show(draining(), 2, 20.0) == msgspec.structs.replace(
        BOOTING,
        state="draining",
        outcome="succeeded",
        workers_ready=2,
        probe="GET / 200",
        booting_for=2.0,
        cut_over_took=1.0,
        total=3.0,
        drains={"in-progress": 3, "stream": 1, "background": 4},
        drain_left=23.0,
    )


def test_a_drain_that_is_overdue_has_nothing_left() -> None:
    """Past the drain's deadline no time is left, rather than less than none."""
    assert show(draining(), 2, 50.0).drain_left == 0.0


def test_a_rollout_that_is_done() -> None:
    """When the old generation has left, its drain is over and the rollout's figures stay as they were."""
    fleet = after(draining(), (21.0, Exited(1, "exited 0")), (22.0, Exited(2, "exited 0")))
    assert show(fleet, 2, 99.0) == msgspec.structs.replace(
        show(draining(), 2, 20.0), state="done", drains={}, drain_left=None
    )


def test_a_rollout_that_was_aborted() -> None:
    """An aborted rollout tells the reason, which worker failed and how, and that worker's last words."""
    assert show(aborted(), 2, 99.0) == msgspec.structs.replace(
        BOOTING,
        state="aborted",
        outcome="aborted",
        workers_ready=0,
        booting_for=2.0,
        total=2.0,
        reason="import",
        failure=FailureView("import", "no module named app", "2.2", 104, "Traceback"),
    )


def test_a_rollout_wants_what_its_own_generation_has() -> None:
    """While an aborted generation leaves, the number of workers that the service wants by now is not its own."""
    fleet = after(aborted(), (13.0, ScaleAsked(3)))
    assert show(fleet, 2, 14.0).workers_wanted == 2
    assert show(fleet, 1, 14.0).workers_wanted == 3


def test_a_rollout_that_was_superseded() -> None:
    """One that gave way to a later request has a reason and no failure."""
    fleet = after(booting(), (11.5, ReloadAsked(OLD, "again")))
    view = show(fleet, 2, 99.0)
    assert (view.outcome, view.reason, view.failure, view.total) == ("aborted", "superseded", None, 1.5)


def test_a_rollout_that_waits() -> None:
    """A rollout that has not begun has no generation and no boot; the service's own size is what it will want."""
    fleet = replace(draining(), policy=Policy(max_draining=1), size=2)
    fleet = after(fleet, (15.0, ReloadAsked(OLD, "back")))
    view = show(fleet, 3, 17.0)
    assert (view.state, view.outcome, view.generation, view.previous) == ("waiting", None, None, None)
    assert (view.booting_for, view.cut_over_took, view.total, view.drains) == (None, None, 2.0, {})
    assert (view.workers_wanted, view.workers_ready) == (2, 0)


def test_a_first_rollout_has_nobody_before_it() -> None:
    """The first generation takes over from nobody."""
    view = show(serving(), 1, 5.0)
    assert (view.state, view.outcome, view.previous, view.previous_release) == ("done", "succeeded", None, "")
    assert (view.booting_for, view.cut_over_took, view.total, view.drain_left) == (1.0, 1.0, 2.0, None)


def test_a_service_that_serves() -> None:
    """The status names the service, where it listens, and every worker with what it does."""
    fleet = after(serving(), (3.0, Reported(1, {"idle": 2, "stream": 1, "background": 4}, 7)))
    assert look(fleet, 10.0) == Status(
        name="shop",
        version="1.0",
        pid=42,
        state="serving",
        listeners=[ListenerView("web", "127.0.0.1:8000"), ListenerView("admin", "unix:/run/admin.sock")],
        generations=[
            GenerationView(
                id=1,
                state="serving",
                release="srv/old",
                workers=[
                    WorkerView("1.1", 101, "serving", 3, 7, {"idle": 2, "stream": 1, "background": 4}, 10.0),
                    WorkerView("1.2", 102, "serving", 0, 0, {}, 10.0),
                ],
            )
        ],
        crossing=CrossingView(given=0, adopted=0, waiting=3, lost=0, closed=0, capacity=278, longest=0.0),
        rollout=show(fleet, 1, 10.0),
    )


def test_the_crossing_is_that_of_the_dead_and_of_the_living() -> None:
    """What moved is added up over the workers that are there and those that are gone, and does not fall by a death."""
    fleet = after(
        draining(),
        (14.0, Reported(1, crossed=Crossed(given=5, closed=2))),
        (14.0, Reported(2, crossed=Crossed(given=3, closed=1))),
        (14.0, Reported(3, crossed=Crossed(adopted=7, lost=1, longest=0.25))),
    )
    shown = CrossingView(given=8, adopted=7, waiting=3, lost=1, closed=3, capacity=278, longest=0.25)
    assert look(fleet, 15.0).crossing == shown
    fleet = after(fleet, (16.0, Exited(1, "exited 0")))
    assert look(fleet, 17.0).crossing == shown


def test_a_rollout_shows_what_its_old_generation_gave_away() -> None:
    """What moved and what was closed is the old generation's, also once that is gone; the pause is the new one's."""
    fleet = after(
        draining(),
        (14.0, Reported(1, crossed=Crossed(given=5, closed=2, longest=9.0))),
        (14.0, Reported(2, crossed=Crossed(given=3))),
        (14.0, Reported(3, crossed=Crossed(adopted=8, longest=0.25))),
    )
    for serial in (None, 1, 2):
        if serial is not None:
            fleet = after(fleet, (20.0, Exited(serial, "exited 0")))
        view = show(fleet, 2, 21.0)
        assert (view.moved, view.closed, view.longest_pause) == (8, 2, 0.25)
    assert show(fleet, 2, 21.0).state == "done"


def test_how_long_a_draining_worker_has_held_each_class() -> None:
    """The age of the oldest connection of each class goes on between two reports."""
    fleet = after(draining(), (20.0, Reported(1, {"stream": 1}, oldest={"stream": 6.0})))
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
    fleet = after(serving(), (3.0, Reported(1, worn="rss")), *come(3, 3.0), (3.0, BeganServing(3)))
    fleet = after(fleet, (4.0, Reported(3, worn="rss")))
    shown = look(fleet, 4.0).generations[0]
    assert shown.waiting == [VacancyView("1.1", 2, 1.5, "rss")]
    assert [(w.id, w.state, w.worn) for w in shown.workers] == [
        ("1.1", "draining", "rss"),
        ("1.1", "serving", "rss"),
        ("1.2", "serving", ""),
    ]


def test_a_worker_that_hangs_is_shown() -> None:
    """From when it is found to hang until it is heard again, a worker tells for how long nothing was heard of it."""
    fleet = after(serving(), (50.0, Reported(2)), (63.0, BeatsDue(63.0)))
    shown = look(fleet, 70.0).generations[0].workers
    assert [(w.id, w.hung_for, w.worn) for w in shown] == [
        ("1.1", 68.0, "no word for 61 s (--hang-timeout)"),
        ("1.1", None, ""),
        ("1.2", None, ""),
    ]
    fleet = after(fleet, (71.0, Reported(1)))
    assert look(fleet, 72.0).generations[0].workers[0].hung_for is None


def crashed() -> Fleet:
    """Both workers of generation 2 died within 3 seconds of its cut-over."""
    return after(draining(), (15.0, Exited(3, "exited 1", "last words")), (16.0, Exited(4, "exited 7", "more")))


def test_a_rollout_that_was_rolled_back() -> None:
    """It tells how many died, and how the last did; its time is still that until its cut-over."""
    view = show(crashed(), 2, 20.0)
    assert (view.state, view.outcome, view.reason, view.deaths) == ("rolled-back", "rolled-back", "crashed", 2)
    assert view.failure == FailureView("exit", "exited 7", "2.2", 104, "more")
    assert (view.previous_release, view.total) == ("srv/old", 3.0)


def test_a_rollout_that_rolls_back() -> None:
    """It names the one that it takes back, and why, and goes on like any other."""
    view = show(crashed(), 3, 20.0)
    assert (view.state, view.outcome, view.rolls_back, view.release) == ("booting", None, 2, "srv/old")
    assert view.why == "gen 2 crashed: 2 deaths within 3 s"
    assert view.previous_release == "srv/new"


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


SCALING = ScalingView(
    id=1,
    state="under-way",
    outcome=None,
    workers_wanted=3,
    workers_before=2,
    workers_serving=2,
    workers_leaving=0,
    total=2.0,
    reason="",
    failure=None,
)
"""The request of ``scaling_up`` as it is shown at second 12."""


def scaling_up() -> Fleet:
    """At second 10 a third worker was asked for."""
    return after(serving(), (10.0, ScaleAsked(3)))


def show_scaling(fleet: Fleet, now: float) -> ScalingView:
    known = fleet.scaling(1)
    assert known is not None
    return scaling(fleet, known, now)


def test_a_scaling_under_way() -> None:
    """While new workers boot, the view tells how many serve and how long it has taken."""
    assert show_scaling(scaling_up(), 12.0) == SCALING


def test_a_scaling_that_is_done() -> None:
    """When they serve the request's time stands still."""
    fleet = after(scaling_up(), *come(3, 11.0), (11.5, BeganServing(3)))
    assert show_scaling(fleet, 99.0) == msgspec.structs.replace(
        SCALING, state="done", outcome="succeeded", workers_serving=3, total=1.5
    )


def test_a_scaling_to_fewer() -> None:
    """Who is beyond the wanted number is shown as leaving, until it has left."""
    fleet = after(serving(), (10.0, ScaleAsked(1)))
    done = msgspec.structs.replace(
        SCALING, state="done", outcome="succeeded", workers_wanted=1, workers_serving=1, workers_leaving=1, total=0.0
    )
    assert show_scaling(fleet, 12.0) == done
    fleet = after(fleet, (13.0, Exited(2, "exited 0")))
    assert show_scaling(fleet, 14.0) == msgspec.structs.replace(done, workers_leaving=0)


def test_a_scaling_that_was_aborted() -> None:
    """An aborted one tells the reason, which worker failed and how; a stop leaves nobody to count."""
    fleet = after(scaling_up(), (11.0, Spawned(3, 103)), (12.0, Exited(3, "exited 1", "Traceback")))
    assert show_scaling(fleet, 99.0) == msgspec.structs.replace(
        SCALING,
        state="aborted",
        outcome="aborted",
        reason="exit",
        failure=FailureView("exit", "exited 1", "1.3", 103, "Traceback"),
    )
    fleet = after(scaling_up(), (11.0, StopAsked("test")))
    assert show_scaling(fleet, 99.0) == msgspec.structs.replace(
        SCALING, state="aborted", outcome="aborted", reason="stopping", workers_serving=0, total=1.0
    )


def test_a_status_crosses_the_socket() -> None:
    """What the supervisor shows is what a client reads."""
    for fleet in (Fleet(), booting(), draining(), aborted(), crashed()):
        shown = look(fleet, 20.0)
        assert msgspec.json.decode(msgspec.json.encode(shown), type=Status) == shown


def test_a_problem_says_what_it_is() -> None:
    """A problem has the media type of RFC 9457, by which a client knows it from an answer."""
    assert PROBLEM == "application/problem+json"


def test_a_problem_leaves_out_what_it_does_not_have() -> None:
    """A problem document has a rollout or a scaling only when it is about one."""
    problem = Problem(f"{PROBLEM_TYPE}usage", "usage", 400, "no")
    assert msgspec.to_builtins(problem) == {
        "type": "urn:stillup:problem:usage",
        "title": "usage",
        "status": 400,
        "detail": "no",
    }
    about = Problem(f"{PROBLEM_TYPE}superseded", "superseded", 409, "no", BOOTING)
    assert msgspec.json.decode(msgspec.json.encode(about), type=Problem) == about
    about = Problem(f"{PROBLEM_TYPE}superseded", "superseded", 409, "no", scaling=SCALING)
    assert msgspec.json.decode(msgspec.json.encode(about), type=Problem) == about


def test_what_a_failed_worker_wrote_can_be_left_out() -> None:
    """The rollout and the status without it, and without what the app said of its failure, say the same otherwise."""
    failed = after(
        Fleet(policy=Policy()),
        (0.0, ReloadAsked(OLD, "start")),
        (0.1, Spawned(1, 7)),
        (0.2, HelloSaid(1)),
        (0.3, BootFailed(1, "import", "no secrets://db")),
        (0.4, Exited(1, "exited 1", "secrets")),
    )
    whole = look(failed, 1.0)
    assert whole.rollout is not None
    assert whole.rollout.failure is not None
    assert whole.rollout.failure.output == "secrets"
    bare = without_output(whole)
    assert "secrets" not in msgspec.json.encode(bare).decode()
    assert bare.rollout is not None
    assert bare.rollout.failure == msgspec.structs.replace(whole.rollout.failure, message="", output="")
    quiet = look(Fleet(), 1.0)
    assert without_output(quiet) == quiet
