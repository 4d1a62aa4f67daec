"""The fleets that a supervisor begins with.

1. The first supervisor of a service begins with an empty fleet (``first_fleet``).
2. One that finds another's record begins with the fleet on it, under its own policy (``fleet_of_record``), if that
   fleet could have been one of ours (``consistent``).
3. One that finds workers and no record makes the fleet of what each of them says about itself (``rebuild``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from stillup.core.hook_settings import HookKind
from stillup.core.lifecycle import ENDING, MAY_BE_EMPTY, POSSIBLE, UNSETTLED, UP
from stillup.core.model import Fleet, Generation, Release, Rollout, Worker
from stillup.core.policy import MOST_IN_STANDBY, MOST_SERVING, SIZES, Policy
from stillup.core.states import GenerationState, RolloutState, ScalingState, ServiceState, WorkerState
from stillup.core.term import Term
from stillup.core.values import replace

_PIDS: Final = range(1, 2**22 + 1)
"""The kernel's process ids (proc_sys_kernel(5), pid_max)."""


def first_fleet(policy: Policy, size: int, before: Fleet | None = None) -> Fleet:
    """The fleet of a service that runs nothing yet.

    Args:
        policy: of this start.
        size: workers wanted of each new generation.
        before: what another supervisor left on record, of which no worker lives. Its cordon lasts, unless it was
            stopped. A hook of it may live; then no later rollout has the number of that one's.
    """
    first = Fleet(policy=policy, size=size)
    if before is None:
        return first
    cordoned = before.cordoned if before.state not in ENDING else None
    if (hook := before.hook_under_way) is None:
        return replace(first, cordoned=cordoned)
    return replace(
        first,
        cordoned=cordoned,
        hooks=(hook,),
        last_hook=before.last_hook,
        last_rollout=before.last_rollout,
        last_generation=before.last_generation,
    )


def fleet_of_record(fleet: Fleet, policy: Policy) -> Fleet:
    """The fleet that another supervisor left on record; the policy is the one of this start."""
    rollouts = tuple(
        rollout
        if rollout.before is None
        else replace(rollout, before=replace(rollout.before, policy=policy, configured=0))
        for rollout in fleet.rollouts
    )
    return replace(fleet, policy=policy, configured=0, rollouts=rollouts)


class Claim(msgspec.Struct, frozen=True):
    """What a worker that no record knows says about itself."""

    pid: int
    started: int
    generation: int
    slot: int
    draining: bool
    """Or paused: nobody knows any more what came after it."""
    release: Release
    leads: bool = False


def rebuild(claims: Sequence[Claim], *, policy: Policy, size: int, now: float) -> Fleet:
    """The fleet that these workers are; the serial of each is its place in ``claims``, from 1.

    The generation in which most serve is the one that serves, of such the latest, and the others are to drain: the
    order comes when they resume. In the middle of a rolling rollout the latest may have one worker, and no other; what
    is missing of the one that serves is started.
    """
    served = Counter(claim.generation for claim in claims if not claim.draining)
    serves = max(served, key=lambda number: (served[number], number), default=0)
    workers: dict[int, Worker] = {}
    generations: dict[int, Generation] = {}
    for serial, claim in enumerate(claims, 1):
        mine = claim.generation == serves
        state = WorkerState.SERVING if mine and not claim.draining else WorkerState.DRAINING
        workers[serial] = Worker(
            serial, claim.generation, claim.slot, state, spawned=now, pid=claim.pid, started=claim.started
        )
        known = generations.get(claim.generation)
        generations[claim.generation] = Generation(
            claim.generation,
            GenerationState.SERVING if mine else GenerationState.DRAINING,
            known.release if known is not None else claim.release,
            max(known.size if known is not None else 1, claim.slot, size if mine else 1),
            drained_from=None if mine else now,
        )
    leader = next((serial for serial, claim in enumerate(claims, 1) if claim.leads), None)
    # A number that none of them was ever told: terms begin at least a second apart, the first after the host's start.
    term = Term(int(now) + 1, leader)
    return Fleet(
        policy=policy,
        size=size,
        term=term,
        state=ServiceState.SERVING if serves else ServiceState.STARTING,
        generations=generations,
        workers=workers,
        last_generation=max(generations, default=0),
        last_worker=len(claims),
    )


def consistent(fleet: Fleet) -> bool:
    """Whether a fleet that was read from a record could have been one of ours, so that it can be taken over."""
    return (
        _workers_fit(fleet)
        and all(_generation_fits(fleet, key, generation) for key, generation in fleet.generations.items())
        and _rollouts_fit(fleet)
        and _hooks_fit(fleet)
        and (fleet.serving is not None) == (fleet.state in UP)
        and fleet.state is not ServiceState.STOPPED
        and fleet.term.worker in {None, *fleet.workers}
        and all(worker.led <= fleet.term.number for worker in fleet.workers.values())
        and all(size in SIZES for size in (fleet.size, *(scaling.size for scaling in fleet.scalings)))
        and sum(scaling.state is ScalingState.UNDER_WAY for scaling in fleet.scalings) <= 1
        and max((scaling.id for scaling in fleet.scalings), default=0) <= fleet.last_scaling
    )


def _workers_fit(fleet: Fleet) -> bool:
    return max(fleet.workers, default=0) <= fleet.last_worker and all(
        key == worker.serial and worker.generation in fleet.generations and (worker.pid is None or worker.pid in _PIDS)
        for key, worker in fleet.workers.items()
    )


def _generation_fits(fleet: Fleet, key: int, generation: Generation) -> bool:
    states, moving = [worker.state for worker in fleet.of(key)], fleet.plan
    return (
        key == generation.id <= fleet.last_generation
        and generation.size in SIZES
        and (generation.state in MAY_BE_EMPTY or bool(states) or (moving is not None and moving.generation == key))
        and all(state in POSSIBLE[generation.state] for state in states)
    )


def _rollouts_fit(fleet: Fleet) -> bool:
    """At most one is before its cut-over, and its generation is where it is; and no more generations serve than may."""
    begun = [(one.generation, UNSETTLED[one.state]) for one in fleet.rollouts if one.state in UNSETTLED]
    new = [(one.id, one.state) for one in fleet.generations.values() if one.state in UNSETTLED.values()]
    moving = fleet.plan
    return (
        begun == new
        and all(one.generation is not None for one in fleet.rollouts if one.state is RolloutState.PREPARING)
        and len(begun) <= 1
        and (moving is None or _plan_fits(fleet, moving))
        and sum(rollout.state.pending for rollout in fleet.rollouts) <= 1
        and fleet.count(GenerationState.SERVING) <= MOST_SERVING
        and fleet.count(GenerationState.STANDBY) <= MOST_IN_STANDBY
        and max((rollout.id for rollout in fleet.rollouts), default=0) <= fleet.last_rollout
    )


def _hooks_fit(fleet: Fleet) -> bool:
    """At most one is under way; and a rollout is prepared if, and only if, there is a hook that it waits for."""
    waited = {hook.rollout for hook in fleet.hooks if hook.kind is HookKind.BEFORE and not hook.state.ended}
    prepared = {rollout.id for rollout in fleet.rollouts if rollout.state is RolloutState.PREPARING}
    return (
        prepared <= waited
        and all(hook.words and (hook.pid is None or hook.pid in _PIDS) for hook in fleet.hooks)
        and sum(hook.state.under_way for hook in fleet.hooks) <= 1
        and max((hook.id for hook in fleet.hooks), default=0) <= fleet.last_hook
    )


def _plan_fits(fleet: Fleet, moving: Rollout) -> bool:
    """What a plan takes the places of serves, and it has bounds."""
    serves = fleet.serving is not None and fleet.serving.id == moving.previous
    is_bounded = min(moving.strategy.max_surge, moving.strategy.max_unavailable) >= 0
    return serves and is_bounded and (moving.watch is not None or moving.state is not RolloutState.WATCHING)
