"""How long a rollout is on probation still."""

from __future__ import annotations

from stillup.core.model import Fleet, Rollout
from stillup.core.states import GenerationState


def left(fleet: Fleet, rollout: Rollout, now: float) -> float | None:
    """The seconds that a rollout has still to be on probation.

    None while its cut-over is ahead, and when its probation is over, whatever that ended with: its time, a rollback, or
    another generation in its place.
    """
    generation = fleet.generations.get(rollout.generation or 0)
    if rollout.cut is None or generation is None or generation.state is not GenerationState.SERVING or rollout.reason:
        return None
    last = fleet.brought_by(generation.id)
    if last is None or last.id != rollout.id:  # it came back from its standby since
        return None
    seconds = fleet.policy.probation - (now - rollout.cut)
    return seconds if seconds > 0 else None
