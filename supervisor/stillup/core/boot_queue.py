"""Which of the workers that are to be started are: no more boot at once than the machine has processors for.

1. A worker boots from its start until it is READY, has ended, or was told to. While ``Policy.boot_concurrency`` workers
   do, whatever they are started for, others are queued; nobody is while there is a place.
2. First come those of a rollback, which ends a harm; then those of the generation that serves; then others. Among these
   who was wanted first is started first.
3. Where no worker serves, one of the generation that is to, or of a rollback, waits for no place, and the next one
   when that is READY: a release that hangs in its boot would otherwise keep the service down.
4. A worker's deadline begins with its start. What it is handed, and what it runs, is as of then.
5. A worker that is queued, and is not needed any more, is gone at once: there is no process that could exit.
"""

from __future__ import annotations

from typing import Final

from stillup.core import orders
from stillup.core.lifecycle import BOOTS
from stillup.core.model import Fleet, Worker
from stillup.core.states import GenerationState, WorkerState
from stillup.core.transition import Transition

ON_THE_WAY: Final = BOOTS | {WorkerState.ACCEPTING}
"""Workers that boot, or were told to accept. One that is READY, and is not told, waits for others of its generation."""


def settle(transition: Transition) -> None:
    """Start those that may boot by now; after each decision."""
    for worker in due(transition.fleet):
        orders.spawn(transition, worker)


def due(fleet: Fleet) -> list[Worker]:
    """Who may boot now, in the order of their turns."""
    queued = [worker for worker in fleet.workers.values() if worker.state is WorkerState.QUEUED]
    if not queued:
        return []
    queued.sort(key=lambda worker: _turn(fleet, worker))
    booting = [worker for worker in fleet.workers.values() if worker.state in BOOTS]
    places = max(0, fleet.policy.boot_concurrency - len(booting))
    return queued[:places] or _without_a_place(fleet, queued)


def _turn(fleet: Fleet, worker: Worker) -> tuple[bool, bool, int]:
    serves = fleet.generations[worker.generation].state is GenerationState.SERVING
    return not _returns(fleet, worker), not serves, worker.serial


def _returns(fleet: Fleet, worker: Worker) -> bool:
    """Whether a rollback that has not cut over brings its generation."""
    pending = fleet.pending
    return pending is not None and pending.rolls_back is not None and pending.generation == worker.generation


def _without_a_place(fleet: Fleet, queued: list[Worker]) -> list[Worker]:
    """The first of what is to serve, if no worker does, and none of the same generation is on its way already."""
    serving = fleet.serving
    if serving is None:
        return []
    if any(worker.state is WorkerState.SERVING and worker.hung is None for worker in fleet.workers.values()):
        return []
    to_serve = (one for one in queued if one.generation == serving.id or _returns(fleet, one))
    return [one for one in to_serve if all(other.state not in ON_THE_WAY for other in fleet.of(one.generation))][:1]
