"""The tables of the state machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from supervisor.core.lifecycle import GENERATION, ROLLOUT, SERVICE, WORKER, Step, after
from supervisor.core.model import GenerationState, RolloutState, ServiceState, WorkerState
from supervisor.errors import Refused

WAYS = """
    worker: spawned -hello-> booting -ready-> ready -accept-> accepting -serve-> serving -drain-> draining
    worker: draining -drain-> draining -serve-> draining
    worker: accepting -drain-> draining
    worker: spawned -term-> stopping -kill-> killed -exit-> exited
    worker: spawned -kill-> killed
    worker: booting -term-> stopping
    worker: booting -kill-> killed
    worker: ready -term-> stopping
    worker: ready -kill-> killed
    worker: accepting -term-> stopping
    worker: accepting -kill-> killed
    worker: serving -term-> stopping
    worker: serving -kill-> killed
    worker: draining -term-> stopping
    worker: draining -kill-> killed
    worker: spawned -exit-> exited
    worker: booting -exit-> exited
    worker: ready -exit-> exited
    worker: accepting -exit-> exited
    worker: serving -exit-> exited
    worker: draining -exit-> exited
    worker: stopping -exit-> exited
    generation: booting -ready-> admitting -cut-over-> serving -drain-> draining -end-> gone
    generation: booting -abort-> draining
    generation: admitting -abort-> draining
    rollout: waiting -begin-> booting -ready-> cutting-over -cut-over-> draining -end-> done
    rollout: waiting -abort-> aborted
    rollout: booting -abort-> aborted
    rollout: cutting-over -abort-> aborted
    service: starting -serve-> serving -serve-> serving -stop-> stopping -end-> stopped
    service: starting -stop-> stopping
"""
"""Every way there is, and no other."""


def ways() -> set[tuple[str, str, str, str]]:
    """``WAYS`` as (machine, state, step, next state)."""
    found = set()
    for line in WAYS.split("\n"):
        machine, _, path = line.strip().partition(": ")
        state, *moves = path.split(" ")
        for move, following in zip(moves[::2], moves[1::2], strict=True):
            step = move.removeprefix("-").removesuffix("->")
            found.add((machine, state, step, following))
            state = following
    return found


def moves() -> Iterator[tuple[str, str, str, str | None]]:
    """Every step from every state of every machine: its next state, or None where it is refused."""
    for worker in WorkerState:
        yield from (("worker", worker, step, taken(WORKER, worker, step)) for step in Step)
    for generation in GenerationState:
        yield from (("generation", generation, step, taken(GENERATION, generation, step)) for step in Step)
    for rollout in RolloutState:
        yield from (("rollout", rollout, step, taken(ROLLOUT, rollout, step)) for step in Step)
    for service in ServiceState:
        yield from (("service", service, step, taken(SERVICE, service, step)) for step in Step)


def taken[S: (WorkerState, GenerationState, RolloutState, ServiceState)](
    table: Mapping[S, Mapping[Step, S]], state: S, step: Step
) -> S | None:
    try:
        return after(table, state, step)
    except Refused as refusal:
        assert refusal.code == "out-of-order"
        assert str(refusal) == f"no '{step}' while {state}"
        return None
