"""Whole rollouts by a plan, of any size and within any bounds, in which workers take their steps in any order."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.events import AbortAsked, BecameReady, BeganServing, Exited, HelloSaid, ScaleAsked
from stillup.core.model import Worker
from stillup.core.plan import Headcount, PlanStep, Sides, next_step
from stillup.core.policy import Policy
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from tests.core.story import serving

BOUNDS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5)).filter(
    lambda b: b[0] > 0 or 0 < b[1] < b[2]
)
"""Max-surge, max-unavailable, and the number of workers."""


class Rolling:
    """A service of some workers that goes from one release to another; after each event its bounds are looked at."""

    def __init__(self, surge: int, missing: int, size: int) -> None:
        strategy = Strategy(StrategyKind.ROLLING, surge, missing)
        self.story = serving(size, Policy(strategy=strategy))
        self.most, self.least = size + surge, max(1, size - missing)
        self.highest, self.lowest = size, size
        """How many processes lived at most, and workers served at least."""
        self.story.reload()
        self.look()

    def look(self) -> None:
        workers = self.story.fleet.workers.values()
        served = sum(worker.state is WorkerState.SERVING for worker in workers)
        self.highest, self.lowest = max(self.highest, len(workers)), min(self.lowest, served)

    def able(self) -> list[int]:
        """The workers that are on the way somewhere."""
        away = (WorkerState.READY, WorkerState.SERVING)
        return [worker.serial for worker in self.story.fleet.workers.values() if worker.state not in away]

    def go_on(self, serial: int) -> None:
        """Let a worker take its next step."""
        worker: Worker = self.story.fleet.workers[serial]
        match worker.state:
            case WorkerState.SPAWNED:
                self.story.tell(HelloSaid(serial), BecameReady(serial))
            case WorkerState.ACCEPTING:
                self.story.tell(BeganServing(serial))
            case _:
                self.story.tell(Exited(serial, "exited 0"))
        self.look()

    def go_all_the_way(self, data: st.DataObject) -> None:
        for _ in range(200):
            if not (able := self.able()):
                return
            self.go_on(data.draw(st.sampled_from(able)))
        pytest.fail("it does not end")


@given(bounds=BOUNDS, data=st.data())
def test_a_rollout_in_its_bounds(bounds: tuple[int, int, int], data: st.DataObject) -> None:
    """All workers are replaced; never more than N + K processes live, never fewer than N - M workers serve."""
    rolling = Rolling(*bounds)
    rolling.go_all_the_way(data)
    assert rolling.story.rollout(2).state is RolloutState.DONE
    assert rolling.story.generations() == {2: GenerationState.SERVING}
    assert len(rolling.story.fleet.workers) == bounds[2]
    assert rolling.highest <= rolling.most
    assert rolling.lowest >= rolling.least


@given(bounds=BOUNDS, steps=st.integers(0, 20), data=st.data())
def test_the_way_back_in_its_bounds(bounds: tuple[int, int, int], steps: int, data: st.DataObject) -> None:
    """It is aborted at any step: as many workers of the old release serve as before, and the bounds hold on the way."""
    rolling = Rolling(*bounds)
    for _ in range(steps):
        if rolling.story.fleet.pending is not None:
            rolling.go_on(data.draw(st.sampled_from(rolling.able())))
    if rolling.story.fleet.pending is not None:
        rolling.story.tell(AbortAsked("test"))
        rolling.look()
        assert rolling.story.rollout(2).reason == "called-off"
        rolling.go_all_the_way(data)
        assert rolling.story.rollout(2).state is RolloutState.ABORTED
        assert rolling.story.generations() == {1: GenerationState.SERVING}
        assert len(rolling.story.fleet.workers) == bounds[2]
    assert rolling.highest <= rolling.most
    assert rolling.lowest >= rolling.least


@given(bounds=BOUNDS, steps=st.integers(1, 20), size=st.integers(1, 5), data=st.data())
def test_another_number_at_any_step(bounds: tuple[int, int, int], steps: int, size: int, data: st.DataObject) -> None:
    """In mid-plan another number of workers is wanted: so many come to serve, and the request is settled by that."""
    surge, missing, _ = bounds
    rolling = Rolling(*bounds)
    for _ in range(steps):
        if rolling.story.fleet.pending is not None:
            rolling.go_on(data.draw(st.sampled_from(rolling.able())))
    if rolling.story.rollout(2).state is RolloutState.SHIFTING and (surge or missing < size):
        rolling.story.tell(ScaleAsked(size))
        rolling.go_all_the_way(data)
        assert rolling.story.rollout(2).state is RolloutState.DONE
        assert rolling.story.fleet.scalings[-1].state.value == "done"
        assert len(rolling.story.fleet.workers) == size


def test_a_thousand_workers() -> None:
    """What a plan costs grows with the workers, not with their square: else a reload would stop the supervisor."""
    story = serving(1000, Policy(strategy=Strategy(StrategyKind.ROLLING, 1000)))
    began = time.process_time()  # 0.04 s; it was 10 s when each of those that start was a step of its own
    story.reload()
    assert time.process_time() - began < 2.0
    assert len(story.fleet.workers) == 2000


@given(
    strategy=st.builds(Strategy, st.just(StrategyKind.ROLLING), st.integers(0, 3), st.integers(0, 6)),
    size=st.integers(1, 5),
    comes=st.builds(Headcount, serving=st.integers(0, 5)),
    goes=st.builds(Headcount, serving=st.integers(0, 6), hung=st.integers(0, 2), coming=st.integers(0, 2)),
)
def test_no_plan_stands_still(strategy: Strategy, size: int, comes: Headcount, goes: Headcount) -> None:
    """While a slot is vacant, and nobody is on the way, there is a next step, whatever has become of the numbers.

    Also within bounds that would be refused: a generation on its way back may be smaller than the one that was wanted.
    """
    if strategy.max_surge or strategy.max_unavailable:
        vacant = size - comes.serving
        step = next_step(strategy, Sides(size, comes, goes, vacant=vacant)) if vacant > 0 else PlanStep.START
        assert step is not None
