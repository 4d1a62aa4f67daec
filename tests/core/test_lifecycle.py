"""The tables of the state machines: every way there is, and no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TypeVar

import pytest

from stillup.core.lifecycle import GENERATION, HOOK, ROLLOUT, SCALING, SERVICE, WORKER, Step, after
from stillup.core.states import GenerationState, HookState, RolloutState, ScalingState, ServiceState, WorkerState
from stillup.errors import Refused

S = TypeVar("S", WorkerState, GenerationState, RolloutState, ScalingState, HookState, ServiceState)


def ways(table: Mapping[S, Mapping[Step, S]], states: Iterable[S]) -> set[str]:
    """Every step that the table takes from any state, found by trying all of them."""
    found = set()
    for state in states:
        for step in Step:
            with suppress(Refused):
                found.add(f"{state} -{step}-> {after(table, state, step)}")
    return found


def ends(table: Mapping[S, Mapping[Step, S]]) -> set[S]:
    """The states without a way out."""
    return {state for state, steps in table.items() if not steps}


def listed(text: str) -> set[str]:
    return {line.strip() for line in text.strip().splitlines()}


def test_every_state_has_an_entry() -> None:
    """No state is unknown to its table, so that a refusal is always a decision."""
    assert set(WORKER) == set(WorkerState)
    assert set(GENERATION) == set(GenerationState)
    assert set(ROLLOUT) == set(RolloutState)
    assert set(SCALING) == set(ScalingState)
    assert set(HOOK) == set(HookState)
    assert set(SERVICE) == set(ServiceState)


def test_the_ends_are_ends() -> None:
    """Exactly the end states have no way out."""
    assert ends(WORKER) == {WorkerState.EXITED}
    assert ends(GENERATION) == {GenerationState.GONE}
    assert ends(ROLLOUT) == {RolloutState.ROLLED_BACK, RolloutState.ABORTED}
    assert ends(SCALING) == {ScalingState.DONE, ScalingState.ABORTED}
    assert ends(HOOK) == {HookState.DONE, HookState.FAILED}
    assert ends(SERVICE) == {ServiceState.STOPPED}


def test_the_ways_of_a_worker() -> None:
    """A worker comes into service step by step, may be ended or exit once it is started, and takes no other step."""
    living = ("spawned", "booting", "ready", "accepting", "serving", "paused", "draining")
    leaving = {
        f"{state} -{step}-> {then}"
        for state in living
        for step, then in (("term", "stopping"), ("kill", "killed"), ("exit", "exited"))
    }
    assert ways(WORKER, WorkerState) == leaving | listed("""
        queued -begin-> spawned
        queued -abort-> exited
        spawned -hello-> booting
        booting -ready-> ready
        ready -accept-> accepting
        accepting -serve-> serving
        accepting -drain-> draining
        serving -pause-> paused
        serving -drain-> draining
        paused -accept-> accepting
        paused -drain-> draining
        draining -drain-> draining
        draining -serve-> draining
        stopping -kill-> killed
        stopping -exit-> exited
        killed -exit-> exited
    """)


def test_the_ways_of_a_generation() -> None:
    """A generation serves after all its workers were ready and accept, together or one after another, then drains.

    It may be in standby before that, and come back. One that took nothing is ended.
    """
    assert ways(GENERATION, GenerationState) == listed("""
        booting -ready-> admitting
        booting -shift-> shifting
        booting -pause-> standby
        booting -abort-> stopping
        admitting -cut-over-> serving
        admitting -abort-> draining
        shifting -cut-over-> serving
        shifting -abort-> draining
        serving -pause-> standby
        serving -drain-> draining
        standby -begin-> booting
        standby -drain-> draining
        draining -end-> gone
        stopping -end-> gone
    """)


def test_the_ways_of_a_rollout() -> None:
    """A rollout can be aborted until its cut-over, and after that it can only be done, or be rolled back once.

    One that is aborted while two generations serve has yet to go back.
    """
    assert ways(ROLLOUT, RolloutState) == listed("""
        waiting -prepare-> preparing
        preparing -begin-> booting
        preparing -abort-> aborted
        waiting -begin-> booting
        waiting -abort-> aborted
        booting -ready-> cutting-over
        booting -shift-> shifting
        booting -abort-> aborted
        cutting-over -cut-over-> draining
        cutting-over -abort-> aborted
        shifting -watch-> watching
        watching -shift-> shifting
        watching -abort-> going-back
        shifting -cut-over-> draining
        shifting -abort-> going-back
        going-back -end-> aborted
        draining -end-> done
        draining -roll-back-> rolled-back
        done -roll-back-> rolled-back
    """)


def test_the_ways_of_the_service() -> None:
    """A service that has served serves until it is stopped; a stop that its supervisor did not live to see is off."""
    assert ways(SERVICE, ServiceState) == listed("""
        starting -serve-> serving
        starting -stop-> stopping
        serving -serve-> serving
        serving -stop-> stopping
        serving -delay-> stop-delay
        stop-delay -stop-> stopping
        stop-delay -recover-> serving
        stopping -end-> stopped
        stopping -recover-> starting
    """)


def test_a_refusal_says_what_was_not_to_be() -> None:
    """A step that the table lacks is refused with its name, the state's, and a word for programs."""
    with pytest.raises(Refused, match=r"^no 'serve' while spawned$") as caught:
        after(WORKER, WorkerState.SPAWNED, Step.SERVE)
    assert caught.value.code == "out-of-order"


def test_a_state_that_the_table_lacks_is_refused() -> None:
    """A table that knows nothing refuses everything, rather than failing in another way."""
    with pytest.raises(Refused):
        after({}, WorkerState.SERVING, Step.DRAIN)


def test_what_retires_and_what_is_pending() -> None:
    """A worker that drains or is ended is on its way out; a rollout is pending until its cut-over or its abort."""
    assert {state for state in WorkerState if state.retiring} == {
        WorkerState.DRAINING,
        WorkerState.STOPPING,
        WorkerState.KILLED,
        WorkerState.EXITED,
    }
    assert {state for state in RolloutState if state.pending} == {
        RolloutState.WAITING,
        RolloutState.PREPARING,
        RolloutState.BOOTING,
        RolloutState.CUTTING_OVER,
        RolloutState.SHIFTING,
        RolloutState.WATCHING,
    }


def test_the_ways_of_a_scaling() -> None:
    """A request for more or fewer workers is done or aborted, once."""
    assert ways(SCALING, ScalingState) == {"under-way -end-> done", "under-way -abort-> aborted"}


def test_the_ways_of_a_hook() -> None:
    """A hook that was told to end has failed, however it ends; one that has an outcome keeps it."""
    assert ways(HOOK, HookState) == listed("""
        waiting -begin-> running
        waiting -abort-> failed
        running -end-> done
        running -abort-> failed
        running -term-> stopping
        stopping -abort-> failed
        stopping -kill-> killed
        killed -abort-> failed
    """)
    assert [state for state in HookState if state.under_way] == [
        HookState.RUNNING,
        HookState.STOPPING,
        HookState.KILLED,
    ]
    assert [state for state in HookState if state.ended] == [HookState.DONE, HookState.FAILED]
