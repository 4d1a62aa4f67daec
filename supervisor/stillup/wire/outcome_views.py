"""How things ended lately, in the shapes of the control API. Durations are seconds."""

from __future__ import annotations

from collections.abc import Iterator

from stillup.core.failures import described
from stillup.core.model import Fleet, Rollout
from stillup.core.outcome_records import MOST_REMEMBERED
from stillup.core.states import RolloutState
from stillup.wire.api_shapes import DeathView, OutcomeView

SUCCEEDED = "succeeded"
REFUSED = "refused"


def outcome(state: RolloutState) -> str | None:
    """The outcome of a rollout that is in that state; None while it has none."""
    if state.pending:
        return None
    if state.aborted:
        return "aborted"
    return "rolled-back" if state is RolloutState.ROLLED_BACK else SUCCEEDED


def outcomes(fleet: Fleet, now: float) -> list[OutcomeView]:
    """The last outcomes, the newest first: of rollouts, and of reloads that were refused before one was made."""
    ended = [*_of_rollouts(fleet, now), *_of_refusals(fleet, now)]
    return sorted(ended, key=lambda one: one.ago)[:MOST_REMEMBERED]


def deaths(fleet: Fleet, now: float) -> list[DeathView]:
    """The last workers that died, the newest first."""
    return [DeathView(one.worker, one.pid, one.how, now - one.at) for one in reversed(fleet.deaths)]


def _of_rollouts(fleet: Fleet, now: float) -> Iterator[OutcomeView]:
    for rollout in reversed(fleet.rollouts):
        how = outcome(rollout.state)
        if how is not None:
            yield OutcomeView(
                outcome=how,
                ago=now - _ended(rollout),
                rollout=rollout.id,
                generation=rollout.generation,
                release=rollout.release.label,
                why=rollout.why,
                reason=rollout.reason,
                failure=described(rollout.failure) if rollout.failure is not None else "",
            )


def _of_refusals(fleet: Fleet, now: float) -> Iterator[OutcomeView]:
    for refused in reversed(fleet.refused):
        yield OutcomeView(
            outcome=REFUSED,
            ago=now - refused.at,
            rollout=None,
            generation=None,
            release="",
            why=refused.why,
            reason=refused.code,
            failure="",
            message=refused.message,
        )


def _ended(rollout: Rollout) -> float:
    """When it got its outcome: a success at its cut-over."""
    succeeded = outcome(rollout.state) == SUCCEEDED
    at = rollout.cut if succeeded else rollout.ended
    return at if at is not None else rollout.asked
