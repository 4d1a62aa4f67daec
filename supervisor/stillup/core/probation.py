"""Whether a release that has just been put into service crashes, and is to be taken back.

1. A rollout is on probation for ``Policy.probation`` seconds from its cut-over. Each worker of its generation that dies
   meanwhile without having been told to leave is counted, replacements too.
2. When as many have died as the generation has workers, and at least two, the rollout is rolled back: by another
   rollout, to the release that it replaced. One death may be anything; so many are the release.
3. A rollout is rolled back once, and one that rolls back never: of two releases that both crash none is better. That
   it crashes is noted.
4. Once another rollout has begun nothing is rolled back, even if that one goes back: whoever asked for it knows better.
   One that still waits for older generations, or for its hook, is superseded, unless it is a rollback itself.
5. A release that replaced its equal, or was put into the same directory, has nothing to go back to: what was there was
   changed in place. It stays, with its back-off.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stillup.core import hooks, listeners, outcomes
from stillup.core.amounts import amount
from stillup.core.lifecycle import ENDING, Step
from stillup.core.model import Failure, Generation, Release, Rollout
from stillup.core.release import overwritten, same
from stillup.core.states import ROLLS_BACK, RolloutState
from stillup.core.transition import Transition
from stillup.core.values import replace

FEWEST_DEATHS: Final = 2
"""Deaths that a rollout is rolled back for at least."""
UNBEGUN: Final = frozenset({RolloutState.WAITING, RolloutState.PREPARING})
"""Rollouts that have no worker yet."""
CRASHED: Final = "crashed"
"""Why a rollout was rolled back."""
OVERWRITTEN: Final = "release-overwritten"
"""Why a rollout that should have been rolled back could not be."""


class RollbackTarget(msgspec.Struct, frozen=True):
    """The release to put back into service, why, and the rollout that is rolled back."""

    release: Release
    why: str
    rollout: int


def count_death(transition: Transition, generation: Generation, failure: Failure) -> RollbackTarget | None:
    """Note that a worker of a generation that serves has died by itself; what to roll back to, if that is due."""
    rollout = _on_probation(transition, generation)
    # A process that could not be started says nothing of the release that it would have run.
    if rollout is None or failure.stage == "spawn":
        return None
    # Nor is what cannot come back while another release goes or comes a fault of this one that served.
    if transition.fleet.plan is not None:
        return None
    rollout = transition.put_rollout(replace(rollout, deaths=rollout.deaths + 1))
    if rollout.deaths < max(FEWEST_DEATHS, generation.size) or transition.fleet.state in ENDING:
        return None
    pending = transition.fleet.pending
    if pending is not None and (pending.state not in UNBEGUN or pending.rolls_back is not None):
        return None
    return _take_back(transition, rollout, generation, failure)


def _on_probation(transition: Transition, generation: Generation) -> Rollout | None:
    """The rollout that brought a generation, while it may be rolled back for what the generation does."""
    rollout = transition.fleet.brought_by(generation.id)
    if rollout is None or rollout.cut is None or rollout.reason:
        return None
    return rollout if transition.now - rollout.cut < transition.fleet.policy.probation else None


def _take_back(
    transition: Transition, rollout: Rollout, generation: Generation, failure: Failure
) -> RollbackTarget | None:
    if rollout.replaced is None:
        return None
    release = listeners.at_hand(transition.fleet, rollout.replaced, generation.release)
    if rollout.rolls_back is not None:
        _stays(transition, rollout, release, ROLLS_BACK)
        return None
    if same(release, generation.release) or overwritten(release, generation.release):
        _stays(transition, rollout, release, OVERWRITTEN)
        return None
    rolled_back = replace(rollout, ended=transition.now, reason=CRASHED, failure=failure)
    transition.move_rollout(rolled_back, Step.ROLL_BACK)
    hooks.end_those_of(transition, rollout.id, CRASHED)
    outcomes.mark_rolled_back(transition, rollout, generation)
    seconds = transition.now - (rollout.cut or 0.0)
    transition.announce(
        "rollout.rolled-back",
        rollout=rollout.id,
        generation=generation.id,
        release=release.label,
        deaths=rollout.deaths,
        seconds=seconds,
    )
    why = f"gen {generation.id} crashed: {amount(rollout.deaths, 'death')} within {seconds:.0f} s"
    return RollbackTarget(release, why, rollout.id)


def _stays(transition: Transition, rollout: Rollout, release: Release, reason: str) -> None:
    """Leave in service what crashes: there is nothing to go back to."""
    transition.put_rollout(replace(rollout, reason=reason))
    transition.announce(
        "rollback.refused", rollout=rollout.id, generation=rollout.generation, release=release.label, reason=reason
    )
