"""The fleet as a value: put in, replaced, left out, forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.model import HISTORY, Failure, Fleet, Generation, Release, Rollout, Scaling, Worker
from stillup.core.states import GenerationState, RolloutState, ScalingState, WorkerState

RELEASE = Release(app="app:app", python="/usr/bin/python3", directory="/srv/app")
ENDED = (RolloutState.DONE, RolloutState.ABORTED, RolloutState.ROLLED_BACK)


def worker(serial: int, *, generation: int = 1, slot: int = 1) -> Worker:
    return Worker(serial, generation, slot, WorkerState.SERVING, spawned=0.0)


def generation(number: int, state: GenerationState) -> Generation:
    return Generation(number, state, RELEASE, size=1)


def rollout(number: int, state: RolloutState) -> Rollout:
    return Rollout(number, state, RELEASE, "test", asked=0.0)


def scaling(number: int, state: ScalingState) -> Scaling:
    return Scaling(number, state, generation=1, size=2, previous=1, asked=0.0, last_worker=1)


def test_a_change_makes_another_fleet() -> None:
    """A fleet that gets a worker, a generation or a rollout stays as it was beside the new one."""
    empty = Fleet()
    changed = empty.with_worker(worker(1)).with_generation(generation(1, GenerationState.BOOTING))
    changed = changed.with_rollout(rollout(1, RolloutState.WAITING))
    assert (len(changed.workers), len(changed.generations), len(changed.rollouts)) == (1, 1, 1)
    assert changed.without_worker(1).workers == {}
    assert len(changed.workers) == 1
    assert empty == Fleet()


def test_workers_are_seen_slot_by_slot() -> None:
    """A generation's workers come in the order of their slots, the older one of a slot first, and no other's."""
    fleet = Fleet()
    for each in (worker(4, slot=2), worker(9, slot=1), worker(3, slot=1), worker(5, generation=2), worker(7, slot=3)):
        fleet = fleet.with_worker(each)
    assert [each.serial for each in fleet.of(1)] == [3, 9, 4, 7]


def test_a_worker_is_called_by_generation_and_slot() -> None:
    """Slot 2 of generation 3 is ``3.2``, whichever process is in it."""
    assert worker(17, generation=3, slot=2).name == "3.2"


def test_a_generation_that_is_gone_is_left_out() -> None:
    """Putting in a generation that is gone takes it out, and leaves the others."""
    fleet = Fleet().with_generation(generation(1, GenerationState.DRAINING))
    fleet = fleet.with_generation(generation(2, GenerationState.SERVING))
    fleet = fleet.with_generation(generation(1, GenerationState.GONE))
    assert set(fleet.generations) == {2}


def test_who_serves_and_how_many_drain() -> None:
    """The one generation that serves is found among others, and the draining ones are counted."""
    fleet = Fleet()
    assert fleet.serving is None
    assert fleet.count(GenerationState.DRAINING) == 0
    for number, state in enumerate(
        (GenerationState.DRAINING, GenerationState.DRAINING, GenerationState.SERVING, GenerationState.BOOTING), 1
    ):
        fleet = fleet.with_generation(generation(number, state))
    assert fleet.serving is not None
    assert fleet.serving.id == 3
    assert fleet.count(GenerationState.DRAINING) == 2


@given(states=st.lists(st.sampled_from(RolloutState), min_size=2 * HISTORY, max_size=4 * HISTORY))
def test_history_forgets_the_oldest_ended_rollouts(states: list[RolloutState]) -> None:
    """The last ``HISTORY`` ended rollouts stay known, in order, and one that has not ended always does."""
    assert HISTORY == 32
    fleet = Fleet()
    for number, state in enumerate(states, 1):
        fleet = fleet.with_rollout(rollout(number, state))
    ended = [number for number, state in enumerate(states, 1) if state in ENDED]
    kept = set(ended[-HISTORY:])
    wanted = [number for number, state in enumerate(states, 1) if state not in ENDED or number in kept]
    assert [known.id for known in fleet.rollouts] == wanted
    assert [fleet.rollout(number) is not None for number in ended] == [number in kept for number in ended]


def test_history_forgets_the_oldest_scalings() -> None:
    """Requests for more or fewer workers are kept as long as rollouts, and beside them."""
    fleet = Fleet().with_rollout(rollout(1, RolloutState.DONE))
    for number in range(1, HISTORY + 2):
        fleet = fleet.with_scaling(scaling(number, ScalingState.UNDER_WAY))
        assert fleet.scaling_under_way == scaling(number, ScalingState.UNDER_WAY)
        fleet = fleet.with_scaling(scaling(number, ScalingState.DONE))
    assert fleet.scaling_under_way is None
    assert (fleet.scaling(1), fleet.scaling(2)) == (None, scaling(2, ScalingState.DONE))
    assert len(fleet.scalings) == HISTORY
    assert fleet.rollout(1) is not None


def test_a_known_rollout_is_replaced_in_its_place() -> None:
    """A rollout that goes on stays where it was, and is there once."""
    fleet = Fleet().with_rollout(rollout(1, RolloutState.BOOTING)).with_rollout(rollout(2, RolloutState.DONE))
    fleet = fleet.with_rollout(rollout(1, RolloutState.CUTTING_OVER))
    assert [(known.id, known.state) for known in fleet.rollouts] == [
        (1, RolloutState.CUTTING_OVER),
        (2, RolloutState.DONE),
    ]
    assert fleet.pending == rollout(1, RolloutState.CUTTING_OVER)
    assert fleet.rollout(3) is None


@pytest.mark.parametrize("failure", [None, Failure("accept", "no")])
@pytest.mark.parametrize("state", WorkerState)
def test_an_exit_is_expected_of_a_worker_that_was_told_to_leave(state: WorkerState, failure: Failure | None) -> None:
    """The end of a worker was ordered if it was on its way out; one that has failed has died all the same."""
    left = Worker(1, 1, 1, state, spawned=0.0, failure=failure)
    told = (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED, WorkerState.EXITED)
    assert left.exit_expected == (state in told and failure is None)


def test_the_latest_generation_is_the_one_that_serves() -> None:
    """Where several serve, whichever was changed last, they are seen from the oldest on."""
    fleet = Fleet()
    for number, state in ((3, GenerationState.SERVING), (4, GenerationState.BOOTING), (2, GenerationState.SERVING)):
        fleet = fleet.with_generation(generation(number, state))
    assert [each.id for each in fleet.all_serving] == [2, 3]
    assert fleet.serving == fleet.generations[3]
    assert Fleet().serving is None
