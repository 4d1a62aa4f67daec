"""What is counted of a fleet: seen by comparing it with what it was before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.model import Fleet, Rollout, RolloutState, Worker


class Phase(StrEnum):
    """What a rollout goes through, if it comes that far."""

    WAITING = "waiting"
    BOOTING = "booting"
    CUTTING_OVER = "cutting-over"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened between two fleets."""

    succeeded: int = 0
    """Rollouts that came to their cut-over."""
    aborted: int = 0
    rolled_back: int = 0
    """Rollouts that had succeeded before."""
    phases: tuple[tuple[Phase, float], ...] = ()
    """The phases that rollouts have come to the end of, each with the seconds that it took."""
    respawns: int = 0
    """Workers that were started for a slot of the serving generation in the place of others."""
    deaths: int = 0
    """Workers that have ended without having been told to, or because they failed."""
    hung: int = 0
    """Workers that were found to hang."""


NOTHING = Tally()


def between(before: Fleet, after: Fleet) -> Tally:
    """What happened between two fleets, of which the first has become the second."""
    known = {rollout.id: rollout for rollout in before.rollouts}
    changed = [(known.get(rollout.id), rollout) for rollout in after.rollouts if known.get(rollout.id) is not rollout]
    come = [worker for serial, worker in after.workers.items() if serial not in before.workers]
    gone = [worker for serial, worker in before.workers.items() if serial not in after.workers]
    return Tally(
        succeeded=sum(new.cut is not None and (old is None or old.cut is None) for old, new in changed),
        aborted=sum(_became(RolloutState.ABORTED, old, new) for old, new in changed),
        rolled_back=sum(_became(RolloutState.ROLLED_BACK, old, new) for old, new in changed),
        phases=tuple(phase for old, new in changed for phase in _phases(old, new)),
        respawns=sum(_respawned(before, worker) for worker in come),
        deaths=sum(not worker.state.retiring or worker.failure is not None for worker in gone),
        hung=sum(
            worker.hung is not None and before.workers[serial].hung is None
            for serial, worker in after.workers.items()
            if serial in before.workers
        ),
    )


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
    serving = before.serving
    return serving is not None and serving.id == worker.generation and worker.slot <= serving.size
