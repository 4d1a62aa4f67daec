"""Which listeners are held, and for whom: a reload may bring some and leave others out.

1. A release says where it listens (``Release.binds``). What is new there is bound before its rollout is asked for.
2. Held is what a generation has that lives, a rollout that is under way, a rollout on probation to go back to, or a
   worker that has been handed it and does not accept yet, or is paused; while nothing serves, everything.
3. A worker is handed what its own generation listens on, and what is held of those before it: nobody else accepts there
   by then. What a rollout brings is handed to nobody else: until its cut-over clients wait in its queue.
4. What nobody wants any more is closed, once: here, and in every worker, which accepts what waits there first.
5. A release whose binds are not known (of a record that did not tell) has all that is held.
6. A release that comes back after its listeners were closed listens where the one does that serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from enum import StrEnum

from stillup.core import probation_time
from stillup.core.lifecycle import UNACCEPTED
from stillup.core.listener_key import ListenerKey
from stillup.core.model import Fleet, Generation, Release
from stillup.core.states import GenerationState, WorkerState
from stillup.core.values import replace


class ListenerState(StrEnum):
    """What becomes of a listener."""

    SERVING = "serving"
    ADDED = "added"
    """A rollout brings it: who connects waits for its cut-over."""
    REMOVED = "removed"
    """Accepted on until nobody could want it back, then closed."""


def wanted(fleet: Fleet, now: float) -> AbstractSet[ListenerKey]:
    """The listeners that somebody wants, of those that are held."""
    held = frozenset(fleet.listeners)
    if fleet.serving is None:
        return held
    releases = [generation.release for generation in fleet.generations.values()]
    releases += [] if fleet.pending is None else [fleet.pending.release]
    releases += _to_go_back_to(fleet, now)
    waiting = UNACCEPTED | {WorkerState.PAUSED}
    coming = {key for worker in fleet.workers.values() if worker.state in waiting for key in worker.listeners}
    return held & (_binds(fleet, releases) | coming)


def handed(fleet: Fleet, generation: Generation, now: float) -> tuple[ListenerKey, ...]:
    """What a new worker of a generation is handed, of what is held."""
    before = [
        one.release
        for one in fleet.generations.values()
        if one.id < generation.id and one.state is not GenerationState.STOPPING
    ]
    binds = _binds(fleet, [generation.release, *before, *_to_go_back_to(fleet, now)])
    return tuple(key for key in fleet.listeners if key in binds)


def at_hand(fleet: Fleet, release: Release, serving: Release) -> Release:
    """A release that is to come back: with its own listeners if all are held still, else with those that serve."""
    return release if release.binds and all_held(fleet, release) else replace(release, binds=serving.binds)


def all_held(fleet: Fleet, release: Release) -> bool:
    """Whether everything is held on which a release listens."""
    return set(release.binds) <= set(fleet.listeners)


def covers(fleet: Fleet, release: Release, other: Release) -> bool:
    """Whether a release listens wherever another one does."""
    return _binds(fleet, [other]) <= _binds(fleet, [release])


def state_of(fleet: Fleet, key: ListenerKey) -> ListenerState:
    """What becomes of a listener that is held."""
    serving, pending = fleet.serving, fleet.pending
    if serving is None or not serving.release.binds or key in serving.release.binds:
        return ListenerState.SERVING
    older = (one.release for one in fleet.generations.values() if one.id < serving.id)
    is_new = pending is not None and key in pending.release.binds and not any(key in one.binds for one in older)
    return ListenerState.ADDED if is_new else ListenerState.REMOVED


def _to_go_back_to(fleet: Fleet, now: float) -> Iterator[Release]:
    """What would come back if a rollout on probation crashed."""
    for rollout in fleet.rollouts:
        if rollout.replaced is not None and probation_time.left(fleet, rollout, now) is not None:
            yield rollout.replaced


def _binds(fleet: Fleet, releases: Iterable[Release]) -> AbstractSet[ListenerKey]:
    return {key for release in releases for key in release.binds or fleet.listeners}
