"""What happened to a fleet, seen by comparing it with what it was before."""

from __future__ import annotations

from collections.abc import Iterator

from stillup.core.fleet_changes import FleetChanges, Phase
from stillup.core.model import Fleet, Rollout, Worker
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.core.worker_figures import tell_more


def changes_between(before: Fleet, after: Fleet) -> FleetChanges:
    """What happened between two fleets, of which the first has become the second."""
    known = {rollout.id: rollout for rollout in before.rollouts}
    changed = [(known.get(rollout.id), rollout) for rollout in after.rollouts if known.get(rollout.id) is not rollout]
    was, there = _started(before), _started(after)
    come = [worker for serial, worker in there.items() if serial not in was]
    gone = [worker for serial, worker in was.items() if serial not in there]
    return FleetChanges(
        succeeded=sum(new.cut is not None and (old is None or old.cut is None) for old, new in changed),
        aborted=sum(new.state.aborted and not (old is not None and old.state.aborted) for old, new in changed),
        rolled_back=sum(_became(RolloutState.ROLLED_BACK, old, new) for old, new in changed),
        phases=tuple(phase for old, new in changed for phase in _phases(old, new)),
        respawns=sum(_respawned(before, worker) for worker in come),
        deaths=sum(not worker.exit_expected for worker in gone),
        hung=sum(
            worker.hung is not None and before.workers[serial].hung is None
            for serial, worker in after.workers.items()
            if serial in before.workers
        ),
    )


def have_counted(before: Fleet, after: Fleet) -> bool:
    """Whether a worker has told, from the first fleet to the second, that it may have counted something."""
    return any(
        worker.figures is not was.figures and tell_more(worker.figures, was.figures)
        for serial, worker in after.workers.items()
        if (was := before.workers.get(serial)) is not None
    )


def _started(fleet: Fleet) -> dict[int, Worker]:
    """The workers that have a process, or are to have one by now."""
    return {serial: worker for serial, worker in fleet.workers.items() if worker.state is not WorkerState.QUEUED}


def _became(state: RolloutState, old: Rollout | None, new: Rollout) -> bool:
    return new.state is state and (old is None or old.state is not state)


def _phases(old: Rollout | None, new: Rollout) -> Iterator[tuple[Phase, float]]:
    ended = new.ended if new.state is RolloutState.DONE else None
    times = (new.asked, new.begun, new.ready, new.cut, ended)
    before = (old.begun, old.ready, old.cut, old.ended) if old is not None else (None,) * len(Phase)
    for phase, was, began, over in zip(Phase, before, times, times[1:], strict=False):
        if was is None and began is not None and over is not None:
            yield phase, over - began


def _respawned(before: Fleet, worker: Worker) -> bool:
    """Whether a new worker takes a slot that was to be filled before."""
    generation = before.generations.get(worker.generation)
    if generation is None or generation.state is not GenerationState.SERVING:
        return False
    return worker.slot <= generation.size
