"""A rollout by a plan: the workers of the new generation take the places of the old ones, some at a time.

1. After each event all is done that the plan allows now (``core.plan``), and nothing else fills a slot of its two
   generations.
2. A worker of the new generation accepts as soon as it is READY. The rollout is BOOTING until its first step that a
   client may notice: a worker of its own accepts, or one of the old leaves. From then on it is SHIFTING.
3. Its cut-over comes when a worker serves in every slot of the new generation. The rest of the old leaves then.
4. A worker of the new generation that fails, or dies, before the cut-over sends the rollout back. So do an abort and a
   later request, which waits until it has gone back.
5. On the way back it is settled as aborted, and is GOING_BACK until a worker serves in every slot of the old
   generation. The rest of the new leaves then. A slot of the old whose workers die young waits as in any generation.
6. A way back that has no end (``core.plan``) is given up for a reload that waits. The generation stays in which more
   workers serve, and the other leaves.
7. Of a canary rollout no more than the canary comes, and no old worker leaves, until that has passed its watch
   (``core.watching``). Then it goes on: beside all the old ones (``core.side_by_side``), or as a rolling one.
"""

from __future__ import annotations

from collections import Counter

from stillup.core import adoption, orders, outcomes, plan, rollout, side_by_side, slots, watching
from stillup.core.lifecycle import HOLDS_CONNECTIONS, Step
from stillup.core.model import Failure, Fleet, Generation, Rollout, Worker
from stillup.core.plan import PlanStep
from stillup.core.states import RolloutState, WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace


def go_on(transition: Transition, before: Fleet) -> None:
    """Do all that may be done now, and tell how far it is; ``before``: the fleet before what has just happened."""
    adoption.tell_changes(transition, before)
    told = transition.fleet
    while _take_steps(transition):
        pass
    serving = transition.fleet.serving
    if before.plan is not None and transition.fleet.plan is None and serving is not None:
        slots.fill_after_plan(transition, serving.id)
    adoption.tell_changes(transition, told)
    _tell_progress(transition, before)


def admit(transition: Transition, worker: Worker, probe: str) -> None:
    """Tell a worker of the new generation to accept that is READY; ``probe``: what its probe saw."""
    moving = transition.fleet.plan
    assert moving is not None  # noqa: S101 - for the type checker: a generation shifts by its plan
    moving = _notice(transition, moving)
    if moving.ready is None:
        transition.put_rollout(replace(moving, ready=transition.now, probe=probe))
    orders.accept(transition, worker)


def lose(transition: Transition, generation: Generation, worker: Worker, failure: Failure, *, seen: bool) -> None:
    """A worker of the new generation has ended; unless that was ordered, or was not seen, the rollout goes back.

    A supervisor that ended may have taken workers with it, which says nothing of the release.
    """
    if worker.exit_expected:
        if worker.hung is not None:
            outcomes.note_death(transition, worker, replace(failure, message=f"hung, and {failure.message}"))
        return
    if worker.state in HOLDS_CONNECTIONS:
        outcomes.tell_of_death(transition, worker, failure)
    moving = rollout.rollout_of(transition, generation)
    if seen and moving.state.pending:
        rollout.abort(transition, moving, reason=failure.stage, failure=failure)
    if rollout.rollout_of(transition, generation).state is RolloutState.GOING_BACK:
        slots.have_wait(transition, generation, worker)


def _take_steps(transition: Transition) -> bool:
    """Do what the plan allows now; False when there is nothing."""
    moving = transition.fleet.plan
    if moving is None:
        return rollout.begin_waiting(transition)
    if moving.on_trial and watching.lose_failed(transition, moving):
        return True
    is_tried = moving.state is RolloutState.SHIFTING and moving.on_trial
    if is_tried and side_by_side.canary_is_complete(transition.fleet, moving):
        watching.begin(transition, moving)
        return True
    generation = plan.coming_generation(transition.fleet, moving)
    if not moving.on_trial and plan.is_complete(transition.fleet, generation):
        _end(transition, moving, generation)
        return True
    pending = transition.fleet.pending
    if pending is not None and pending.state is RolloutState.WAITING and plan.has_no_end(transition.fleet, moving):
        _give_up(transition, moving)
        return True
    if side_by_side.keeps_old(moving):
        return _take_step_beside(transition, moving)
    sides = plan.count(transition.fleet, moving, transition.now)
    steps = Counter(plan.next_steps(plan.bounds(moving, generation.size), sides))
    for slot in plan.bereft(transition.fleet, moving, transition.now)[: steps[PlanStep.RESTORE]]:
        slots.start(transition, plan.going_generation(moving), slot)
    for slot in plan.vacant(transition.fleet, generation, transition.now)[: steps[PlanStep.START]]:
        slots.start(transition, generation.id, slot)
    for step in (PlanStep.DROP, PlanStep.RETIRE, PlanStep.MAKE_ROOM):
        if steps[step]:
            if step is not PlanStep.DROP:  # which no client can notice
                moving = _notice(transition, moving)
            for worker in plan.next_to_leave(transition.fleet, moving, step)[: steps[step]]:
                orders.give_way(transition, worker)
    return bool(steps)


def _take_step_beside(transition: Transition, moving: Rollout) -> bool:
    """Do the next thing that may be done while all the old workers stay; False when there is none."""
    step = side_by_side.next_step(transition.fleet, moving, transition.now)
    if isinstance(step, list):
        for slot in step:
            slots.start(transition, slot.generation, slot.slot)
    elif step is not None:
        orders.give_way(transition, step)
    return step is not None


def _notice(transition: Transition, moving: Rollout) -> Rollout:
    """The rollout as it is from the first step on that a client may notice."""
    if moving.state is not RolloutState.BOOTING:
        return moving
    transition.move_generation(plan.coming_generation(transition.fleet, moving), Step.SHIFT)
    return transition.move_rollout(moving, Step.SHIFT)


def _end(transition: Transition, moving: Rollout, generation: Generation) -> None:
    """In each slot of the generation that is to stay a worker serves."""
    if moving.state is RolloutState.GOING_BACK:
        transition.announce("rollout.went-back", rollout=moving.id, generation=moving.generation)
        rollout.keep_one(transition, moving, generation.id)
    else:
        rollout.cut_over(transition, moving, generation)


def _give_up(transition: Transition, moving: Rollout) -> None:
    """Go back no further: of the two generations that stays in which more serve, of equals the old one."""
    served = [worker.generation for worker in transition.fleet.workers.values() if plan.serves(worker)]
    stays = max(moving.previous or 0, moving.generation or 0, key=served.count)
    transition.announce(
        "rollout.gave-up",
        rollout=moving.id,
        generation=moving.generation,
        serving=stays,
        workers=served.count(stays),
        of=plan.wanted(transition.fleet, moving),
    )
    rollout.keep_one(transition, moving, stays)


def _tell_progress(transition: Transition, before: Fleet) -> None:
    moving = transition.fleet.plan
    if moving is None or not moving.state.shifts:
        return
    old, new = _serving(transition.fleet, moving)
    if (old, new) != _serving(before, moving):
        of = plan.coming_generation(transition.fleet, moving).size
        transition.announce("rollout.step", rollout=moving.id, generation=moving.generation, old=old, new=new, of=of)


def _serving(fleet: Fleet, moving: Rollout) -> tuple[int, int]:
    """How many workers serve, of the old generation and of the new one."""
    served = [worker.generation for worker in fleet.workers.values() if worker.state is WorkerState.SERVING]
    return served.count(moving.previous or 0), served.count(moving.generation or 0)
