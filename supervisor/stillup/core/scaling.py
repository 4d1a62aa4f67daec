"""Requests for another number of workers: how many slots the serving generation has, and how a request ends.

1. A request is settled once: when a worker serves in each wanted slot and those beyond have been told to leave, or
   when it is aborted: a worker that was started since has died before that, a later request supersedes it, or a stop.
2. Its end is not the end of what was wanted: slots that could not be filled are tried again, with their back-off.
3. A rollout does not abort it: the generation that it brings is of the size wanted, and its cut-over may settle it.
   While a plan moves (``core.plan``) it goes on with the new number, and the request is settled when it is over; but
   while all the old workers stay beside a canary, as soon as these are as many.

Rule 1 lets no request wait for ever: each slot is filled by a worker that was there, or by one that was started since;
and that one serves, or fails by its deadlines.
"""

from __future__ import annotations

from stillup.core import orders, side_by_side, slots, standby
from stillup.core.lifecycle import ENDING, LEAVING, Step
from stillup.core.model import Failure, Fleet, Rollout, Scaling, Worker
from stillup.core.policy import MOST_WORKERS
from stillup.core.states import RolloutState, ScalingState, WorkerState
from stillup.core.strategy import Strategy, check
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused


def scale(transition: Transition, size: int) -> None:
    """Want so many workers.

    Raises:
        Refused: ``usage``: that is no number of workers; ``stopping``; or ``rollout-in-progress``: it cannot be
            changed now.
    """
    fleet = transition.fleet
    serving = fleet.serving
    if size < 1:
        message = "a service needs at least 1 worker; 'stillup stop' ends it"
        raise Refused(message, code="usage")
    if size > MOST_WORKERS:
        raise Refused(f"{size} workers are too many: {MOST_WORKERS} are the most", code="usage")
    if fleet.state in ENDING:
        message = "the service is stopping; start it again with the number of workers that it is to have"
        raise Refused(message, code="stopping")
    shifts = fleet.plan is not None and fleet.plan.state.shifts
    if serving is None or (fleet.pending is not None and not shifts):
        message = f"the number of workers cannot be changed now: {_in_the_way(fleet)}"
        raise Refused(message, code="rollout-in-progress")
    for strategy in _strategies(fleet):
        check(strategy, size)
    abort(transition, "superseded")
    scaling = Scaling(
        fleet.last_scaling + 1,
        ScalingState.UNDER_WAY,
        generation=serving.id,
        size=size,
        previous=fleet.size,
        asked=transition.now,
        last_worker=fleet.last_worker,
    )
    transition.fleet = replace(transition.fleet, size=size, last_scaling=scaling.id).with_scaling(scaling)
    transition.announce("service.scaled", generation=serving.id, workers=size)
    if fleet.standby is not None:
        standby.shrink(transition, fleet.standby, size)
    if fleet.plan is None:
        slots.resize(transition, serving, size)
    else:
        _resize_plan(transition, fleet.plan, size)


def _strategies(fleet: Fleet) -> list[Strategy]:
    """All that may have to bring so many workers. One that goes back takes one more if its own bounds leave no room."""
    ahead = [rollout for rollout in fleet.rollouts if rollout.state.pending]
    before = [rollout.before.policy.strategy for rollout in ahead if rollout.before is not None]
    return [fleet.policy.strategy, *before, *(rollout.strategy for rollout in ahead)]


def _resize_plan(transition: Transition, moving: Rollout, size: int) -> None:
    """Want so many workers of both generations of a plan: the one that stays is to have them, whichever that is.

    Who is queued beyond is gone at once: there may be no room for its process by now.
    """
    for number in (moving.previous, moving.generation):
        generation = transition.fleet.generations[number or 0]
        vacancies = {slot: vacancy for slot, vacancy in generation.vacancies.items() if slot <= size}
        transition.put_generation(replace(generation, size=size, vacancies=vacancies))
        for worker in tuple(transition.fleet.of(generation.id)):
            if worker.slot > size and worker.state is WorkerState.QUEUED:
                orders.leave(transition, worker)
    pending = transition.fleet.pending
    if pending is not None and pending.before is not None:
        transition.put_rollout(replace(pending, before=replace(pending.before, size=size)))


def settle(transition: Transition) -> None:
    """End the request that is under way if what it asked for is there."""
    scaling, serving = transition.fleet.scaling_under_way, transition.fleet.serving
    moving = transition.fleet.plan
    if scaling is None or serving is None or (moving is not None and not side_by_side.keeps_old(moving)):
        return
    served = {worker.slot for worker in transition.fleet.of(serving.id) if worker.state is WorkerState.SERVING}
    if served == set(range(1, scaling.size + 1)):
        transition.move_scaling(replace(scaling, ended=transition.now), Step.END)
        transition.announce("scaling.done", scaling=scaling.id, workers=scaling.size)


def fail(transition: Transition, died: Worker, failure: Failure) -> None:
    """End the request that is under way if this death keeps what it asked for from being there."""
    scaling = transition.fleet.scaling_under_way
    moving = transition.fleet.plan
    if scaling is None or died.serial <= scaling.last_worker or (moving is not None and moving.state.pending):
        return
    # The death of a replacement costs a slot nothing while the worker that it was to replace serves.
    others = slots.workers_in(transition, died.generation, died.slot)
    if not any(worker.state is WorkerState.SERVING for worker in others):
        abort(transition, failure.stage, failure)


def abort(transition: Transition, reason: str, failure: Failure | None = None) -> None:
    """End the request that is under way, if there is one: nobody waits for it any longer."""
    scaling = transition.fleet.scaling_under_way
    if scaling is None:
        return
    transition.move_scaling(replace(scaling, ended=transition.now, reason=reason, failure=failure), Step.ABORT)
    transition.announce("scaling.aborted", scaling=scaling.id, workers=scaling.size, reason=reason)


def _in_the_way(fleet: Fleet) -> str:
    """What a request has to wait for."""
    pending = fleet.pending
    if pending is None:
        return f"the service is {fleet.state}, and nothing serves"
    off = "; 'stillup abort' calls it off"
    if pending.state is RolloutState.WAITING:
        leaving = (str(one.id) for one in fleet.generations.values() if one.state in LEAVING)
        return f"reload {pending.id} comes first, and waits until one of gen {', '.join(sorted(leaving))} has left{off}"
    return f"gen {pending.generation} is before its cut-over{off if fleet.serving is not None else ''}"
