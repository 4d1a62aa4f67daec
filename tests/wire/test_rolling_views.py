"""A rolling rollout in the control API and in the service's one line, step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stillup.core.events import (
    AbortAsked,
    BeganServing,
    Exited,
    HelloSaid,
    ProbeAnswered,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    WorkerBootFailed,
)
from stillup.core.model import Fleet
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.worker_figures import WorkerFigures
from stillup.wire.api_shapes import StepView
from stillup.wire.status_line import status_line
from tests.wire.example_fleets import NEW, OLD, after, come, look, serving, show, show_scaling

ROLLING = Strategy(StrategyKind.ROLLING)


def begun() -> Fleet:
    """A rolling reload was asked for at second 10: one worker of generation 2 boots."""
    return after(serving(), (10.0, ReloadAsked(NEW, "asked", strategy=ROLLING)))


def shifting() -> Fleet:
    """It serves since second 12, and one of the old ones drains, with a stream."""
    fleet = after(begun(), *come(3, 11.0), (12.0, BeganServing(3)))
    return after(fleet, (13.0, Reported(2, WorkerFigures({"stream": 1}, 5))))


def next_one_boots() -> Fleet:
    """That one has left at second 14, and the next new one is not healthy yet."""
    return after(shifting(), (14.0, Exited(2, "exited 0")), (14.0, Spawned(4, 104)), (14.0, HelloSaid(4)))


def going_back() -> Fleet:
    """The next new one could not import the app."""
    failed = WorkerBootFailed(4, "import", "no module named app")
    return after(next_one_boots(), (15.0, failed), (16.0, Exited(4, "exited 1", "Traceback")))


def gone_back() -> Fleet:
    """A second old one serves again since second 18; what of the new one has served drains."""
    return after(going_back(), *come(5, 17.0), (18.0, BeganServing(5)))


def superseded_on_the_way() -> Fleet:
    """Another reload waits until it has gone back."""
    return after(going_back(), (16.5, ReloadAsked(OLD, "asked again")))


def cut_over() -> Fleet:
    """Both new ones serve since second 16."""
    return after(next_one_boots(), *come(4, 15.0)[2:], (16.0, BeganServing(4)))


@pytest.mark.parametrize(
    ("fleet", "state", "step"),
    [
        (begun, "booting", None),
        (shifting, "shifting", StepView(old=1, new=1, of=2)),
        (next_one_boots, "shifting", StepView(old=1, new=1, of=2)),
        (going_back, "going-back", StepView(old=1, new=1, of=2)),
        (gone_back, "aborted", None),
        (cut_over, "draining", None),
    ],
)
def test_how_far_it_is(fleet: Callable[[], Fleet], state: str, step: StepView | None) -> None:
    """Said while both generations may serve; the new one is the one that serves when it does alone."""
    view = show(fleet(), 2, 20.0)
    assert (view.strategy, view.state, view.step) == ("rolling", state, step)
    assert view.serves == (fleet is cut_over)
    assert (view.generation, view.previous) == (2, 1)


def test_what_the_next_step_waits_for() -> None:
    """What the workers hold that drain, of either generation; not what those have that serve."""
    fleet = after(shifting(), (13.0, Reported(1, WorkerFigures({"idle": 7}, 5))))
    view = show(fleet, 2, 20.0)
    assert (view.drains, view.drain_left) == ({"stream": 1}, 592.0)
    assert show(next_one_boots(), 2, 20.0).drains == {}


def test_one_that_goes_back_is_aborted_at_once() -> None:
    """With its reason and failure; its time goes on until its steps are taken back."""
    view = show(going_back(), 2, 20.0)
    assert (view.outcome, view.reason, view.total) == ("aborted", "import", 10.0)
    assert view.failure is not None
    assert view.failure.message == "no module named app"


def test_a_reload_waits_for_the_way_back() -> None:
    """It names the generation that has to leave, and what that still holds of what drains."""
    view = show(superseded_on_the_way(), 3, 20.0)
    assert (view.state, view.waits_for, view.drains) == ("waiting", [2], {})
    assert look(superseded_on_the_way(), 20.0).rollout == view


def test_the_status_shows_the_way_back() -> None:
    """Though its rollout has an outcome, and another that was called off while it waited came after it."""
    for fleet in (going_back(), after(superseded_on_the_way(), (17.0, AbortAsked("asked")))):
        rollout = look(fleet, 20.0).rollout
        assert rollout is not None
        assert (rollout.id, rollout.step) == (2, StepView(old=1, new=1, of=2))


def test_a_scaling_in_the_middle_counts_both_generations() -> None:
    """What serves is what serves, whichever release it is of."""
    view = show_scaling(after(next_one_boots(), (15.0, ScaleAsked(3))), 20.0)
    assert (view.workers_wanted, view.workers_serving) == (3, 2)


@pytest.mark.parametrize(
    ("fleet", "line"),
    [
        (begun, "gen 1 serves, 2 of 2 workers; gen 2 boots"),
        (shifting, "gen 1 serves, 1 of 2 workers; gen 2 comes, 1 of 2 workers"),
        (going_back, "gen 2 rejected (import); gen 1 serves, 1 of 2 workers; gen 2 goes back, 1 of 2 workers"),
        (
            superseded_on_the_way,
            "gen 1 serves, 1 of 2 workers; gen 2 goes back, 1 of 2 workers; a reload waits",
        ),
        (gone_back, "gen 2 rejected (import); gen 1 serves, 2 of 2 workers; gen 2 drains"),
        (cut_over, "gen 2 serves, 2 of 2 workers; gen 1 drains"),
    ],
)
def test_the_service_in_one_line(fleet: Callable[[], Fleet], line: str) -> None:
    """What serves, and how far the other is."""
    assert status_line(fleet()) == line


def test_the_line_has_what_the_probe_says() -> None:
    """Of the one that boots."""
    fleet = after(next_one_boots(), (15.0, ProbeAnswered(4, 503)))
    assert status_line(fleet) == "gen 1 serves, 1 of 2 workers; gen 2 comes, 1 of 2 workers, / 503"
