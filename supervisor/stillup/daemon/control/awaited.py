"""What callers wait for, as conditions of the fleet, and which rollout their request has come to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stillup.core import probation_time
from stillup.core.model import Fleet
from stillup.core.states import RolloutState, ScalingState
from stillup.core.watch import Verdict
from stillup.errors import Refused
from stillup.wire import fleet_views


def now() -> float:
    """The loop's time, which is the fleet's."""
    return asyncio.get_running_loop().time()


def reached(number: int, wait: str) -> Callable[[Fleet], bool]:
    """Whether a rollout has come as far as that (``wait`` of the API), or will not come any further."""

    def has_reached(fleet: Fleet) -> bool:
        rollout = fleet.rollout(number)
        if rollout is None:
            return True
        if wait == "drained":
            return rollout.state in (RolloutState.DONE, RolloutState.ABORTED, RolloutState.ROLLED_BACK)
        return not rollout.state.pending and (wait != "probation" or probation_left(fleet, number) is None)

    return has_reached


def probation_left(fleet: Fleet, number: int) -> float | None:
    """Seconds until the probation of a rollout is over; None if it is in none."""
    rollout = fleet.rollout(number)
    return probation_time.left(fleet, rollout, now()) if rollout is not None else None


def at_it(fleet: Fleet) -> int:
    """The rollout that brings a generation, or has brought the one that serves.

    Raises:
        Refused: ``unavailable``: there is none.
    """
    rollout = fleet.pending or (fleet.brought_by(fleet.serving.id) if fleet.serving is not None else None)
    if rollout is None:
        raise Refused(f"the service is {fleet.state}", code="unavailable")
    return rollout.id


def promoted_last(fleet: Fleet) -> int:
    """The rollout that was promoted just now: the newest of those that were."""
    promoted = (one.id for one in fleet.rollouts if one.watch is not None and one.watch.verdict is Verdict.PROMOTED)
    return max(promoted)


def scaled(number: int, wait: str) -> Callable[[Fleet], bool]:
    """Whether a request for a number of workers has come as far as that, or will not come any further."""

    def is_scaled(fleet: Fleet) -> bool:
        scaling = fleet.scaling(number)
        if scaling is None or scaling.state is ScalingState.UNDER_WAY:
            return scaling is None
        left = fleet_views.scaling(fleet, scaling, now()).workers_leaving
        return wait != "drained" or scaling.state is ScalingState.ABORTED or not left

    return is_scaled
