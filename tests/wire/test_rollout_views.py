"""A rollout and a scaling in the control API, phase by phase."""

from __future__ import annotations

import msgspec

from stillup.core.crossing import Crossed
from stillup.core.events import (
    BeganServing,
    Exited,
    HelloSaid,
    ProbeAnswered,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    StopAsked,
)
from stillup.core.policy import Policy
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.wire.api_shapes import (
    FailureView,
)
from tests.wire.example_fleets import (
    BOOTING,
    NEW,
    OLD,
    SCALING,
    aborted,
    after,
    booting,
    come,
    crashed,
    cutting_over,
    draining,
    look,
    scaling_up,
    serving,
    show,
    show_scaling,
)


def test_a_rollout_that_boots() -> None:
    """While workers boot, the view tells how many are ready and how long it has taken; nothing has an end yet."""
    assert show(booting(), 2, 11.5) == BOOTING


def test_what_the_probe_of_a_worker_was_answered() -> None:
    """While a worker is not healthy its probe's last answer is shown, by its path without the query."""
    release = replace(NEW, settings=replace(NEW.settings, health_path="/healthz?token=7"))
    fleet = after(serving(), (10.0, ReloadAsked(release, "asked")), (10.5, Spawned(3, 103)), (11.0, HelloSaid(3)))
    assert show(fleet, 2, 11.5).probe == ""
    fleet = after(fleet, (12.0, ProbeAnswered(3, 503)))
    assert show(fleet, 2, 12.5).probe == "/healthz 503"
    assert show(after(fleet, (13.0, ProbeAnswered(3, 0))), 2, 13.5).probe == "/healthz does not answer"


def test_a_rollout_whose_workers_are_queued() -> None:
    """Who waits for a boot is counted, until it has its process."""
    assert show(booting(), 2, 11.5).workers_queued == 0
    few = replace(serving(), policy=Policy(boot_concurrency=1))
    fleet = after(few, (10.0, ReloadAsked(NEW, "asked by uid 0, pid 7")))
    assert show(fleet, 2, 10.5).workers_queued == 1
    assert [worker.state for worker in look(fleet, 10.5).generations[1].workers] == ["spawned", "queued"]


def test_nothing_drains_before_the_cut_over() -> None:
    """What the old generation holds while it still serves is nothing that a rollout waits for."""
    fleet = after(booting(), (11.0, Reported(1, WorkerFigures({"in-progress": 2}, 5))))
    assert show(fleet, 2, 11.5) == BOOTING


def test_a_rollout_that_cuts_over() -> None:
    """Once all are READY the boot's time stands still; workers that were told to accept still count as ready."""
    assert show(cutting_over(), 2, 12.75) == msgspec.structs.replace(
        BOOTING, state="cutting-over", workers_ready=2, probe="/ 200", booting_for=2.0, total=2.75
    )


def test_a_rollout_whose_old_generation_drains() -> None:
    """From its cut-over on, a rollout has succeeded; what the old generation still holds is added up by class."""
    assert show(draining(), 2, 20.0) == msgspec.structs.replace(
        BOOTING,
        state="draining",
        outcome="succeeded",
        workers_ready=2,
        probe="/ 200",
        booting_for=2.0,
        cut_over_took=1.0,
        total=3.0,
        drains={"in-progress": 3, "stream": 1, "background": 4},
        drain_left=593.0,
        probation_left=23.0,
        serves=True,
    )


def test_a_drain_that_is_overdue_has_nothing_left() -> None:
    """Past the drain's deadline no time is left, rather than less than none."""
    assert show(draining(), 2, 700.0).drain_left == 0.0


def test_who_ended_its_service() -> None:
    """Of a generation that does not serve any more: whether a stop ended that, or the next one."""
    stop, cut = (25.0, StopAsked("test")), draining()
    assert (show(cut, 2, 25.0).stopped, show(cut, 1, 25.0).stopped) == (False, False)
    assert (show(after(cut, stop), 2, 25.0).stopped, show(after(cut, stop), 1, 25.0).stopped) == (True, False)
    assert not show(after(booting(), stop), 2, 25.0).stopped, "it never served"


def test_at_a_stop_a_drain_has_the_times_of_the_stop() -> None:
    """All classes have --stop-timeout from then on, in what drained for a reload too."""
    fleet = replace(draining(), policy=Policy(stop_timeout=40.0))
    assert show(fleet, 2, 25.0).drain_left == 588.0
    fleet = after(fleet, (25.0, StopAsked("test")))
    assert show(fleet, 2, 25.0).drain_left == 40.0
    assert show(fleet, 2, 35.0).drain_left == 30.0


def test_a_rollout_that_is_done() -> None:
    """When the old generation has left, its drain is over and the rollout's figures stay as they were."""
    fleet = after(draining(), (21.0, Exited(1, "exited 0")), (22.0, Exited(2, "exited 0")))
    assert show(fleet, 2, 99.0) == msgspec.structs.replace(
        show(draining(), 2, 20.0), state="done", drains={}, drain_left=None, probation_left=None
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
    """A rollout that has not begun has no generation and no boot; the service's own size is what it will want.

    It says what it waits for, what that holds, and for how long at most.
    """
    fleet = replace(draining(), policy=Policy(max_draining=1), size=2)
    fleet = after(fleet, (15.0, ReloadAsked(OLD, "back")))
    view = show(fleet, 3, 17.0)
    assert (view.state, view.outcome, view.generation, view.previous) == ("waiting", None, None, None)
    assert (view.booting_for, view.cut_over_took, view.total) == (None, None, 2.0)
    held = {"in-progress": 3, "stream": 1, "background": 4}
    assert (view.waits_for, view.drains, view.drain_left) == ([1], held, 596.0)
    assert (view.workers_wanted, view.workers_ready) == (2, 0)


def test_a_first_rollout_has_nobody_before_it() -> None:
    """The first generation takes over from nobody."""
    view = show(serving(), 1, 5.0)
    assert (view.state, view.outcome, view.previous, view.previous_release) == ("done", "succeeded", None, "")
    assert (view.booting_for, view.cut_over_took, view.total, view.drain_left) == (1.0, 1.0, 2.0, None)


def test_a_rollout_shows_what_its_old_generation_gave_away() -> None:
    """What moved and what was closed is the old generation's, also once that is gone; the pause is the new one's."""
    fleet = after(
        draining(),
        (14.0, Reported(1, WorkerFigures(crossed=Crossed(given=5, closed=2, longest=9.0)))),
        (14.0, Reported(2, WorkerFigures(crossed=Crossed(given=3)))),
        (14.0, Reported(3, WorkerFigures(crossed=Crossed(adopted=8, longest=0.25)))),
    )
    for serial in (None, 1, 2):
        if serial is not None:
            fleet = after(fleet, (20.0, Exited(serial, "exited 0")))
        view = show(fleet, 2, 21.0)
        assert (view.moved, view.closed, view.longest_pause) == (8, 2, 0.25)
    assert show(fleet, 2, 21.0).state == "done"


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


def test_a_scaling_under_way() -> None:
    """While new workers boot, the view tells how many serve and how long it has taken."""
    assert show_scaling(scaling_up(), 12.0) == msgspec.structs.replace(SCALING, workers_booting=1)


def test_a_scaling_that_is_done() -> None:
    """When they serve the request's time stands still."""
    fleet = after(scaling_up(), *come(3, 11.0), (11.5, BeganServing(3)))
    assert show_scaling(fleet, 99.0) == msgspec.structs.replace(
        SCALING, state="done", outcome="succeeded", workers_serving=3, total=1.5
    )


def test_a_scaling_to_fewer() -> None:
    """Who is beyond the wanted number is shown as leaving, until it has left; and what it holds, for how long."""
    fleet = after(serving(), (10.0, ScaleAsked(1)), (11.0, Reported(2, WorkerFigures({"stream": 2}, 5))))
    done = msgspec.structs.replace(
        SCALING, state="done", outcome="succeeded", workers_wanted=1, workers_serving=1, workers_leaving=1, total=0.0
    )
    assert show_scaling(fleet, 12.0) == msgspec.structs.replace(done, drains={"stream": 2}, drain_left=598.0)
    fleet = after(fleet, (13.0, Exited(2, "exited 0")))
    assert show_scaling(fleet, 14.0) == msgspec.structs.replace(done, workers_leaving=0)


def test_at_a_stop_who_leaves_after_a_scaling_has_the_times_of_the_stop() -> None:
    """As what drains for a reload."""
    fleet = after(serving(), (10.0, ScaleAsked(1)), (11.0, Reported(2, WorkerFigures({"stream": 2}, 5))))
    fleet = after(fleet, (12.0, StopAsked("test")))
    assert show_scaling(fleet, 20.0).drain_left == 22.0


def test_a_scaling_that_was_aborted() -> None:
    """An aborted one tells the reason, which worker failed and how; a stop leaves nobody to count."""
    fleet = after(scaling_up(), (11.0, Spawned(3, 103)), (12.0, Exited(3, "exited 1", "Traceback")))
    assert show_scaling(fleet, 99.0) == msgspec.structs.replace(
        SCALING,
        state="aborted",
        outcome="aborted",
        workers_booting=1,
        reason="exit",
        failure=FailureView("exit", "exited 1", "1.3", 103, "Traceback"),
    )
    fleet = after(scaling_up(), (11.0, StopAsked("test")))
    assert show_scaling(fleet, 99.0) == msgspec.structs.replace(
        SCALING, state="aborted", outcome="aborted", reason="stopping", workers_serving=0, total=1.0
    )
