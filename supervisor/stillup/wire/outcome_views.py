"""How things ended lately, in the shapes of the control API. Durations are seconds."""

from __future__ import annotations

from collections.abc import Iterator

from stillup.core.failures import described
from stillup.core.model import Fleet, Rollout
from stillup.core.outcome_records import MOST_REMEMBERED
from stillup.core.rollback import release_of
from stillup.core.states import RolloutState
from stillup.wire.api_shapes import DeathView, OutcomeView
from stillup.wire.history_view import RevisionView

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


def history(fleet: Fleet, now: float) -> list[RevisionView]:
    """What was brought, the newest first, as far as rollouts are remembered."""
    serves = fleet.serving.id if fleet.serving is not None else None
    seen = []
    for rollout in reversed(fleet.rollouts):
        how = outcome(rollout.state)
        if how is not None and rollout.generation is not None:
            is_it = rollout.generation == serves
            serves = None if is_it else serves  # one that came back from its standby was brought before that, too
            seen.append(
                RevisionView(
                    generation=rollout.generation,
                    release=rollout.release.label,
                    outcome="serves" if is_it else how,
                    ago=now - (rollout.cut if rollout.cut is not None else _ended(rollout)),
                    rollout=rollout.id,
                    why=rollout.why,
                    reason=rollout.reason,
                    rolls_back=rollout.rolls_back,
                    can_return=not is_it and rollout.cut is not None and release_of(fleet, rollout).whole,
                )
            )
    return seen


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
