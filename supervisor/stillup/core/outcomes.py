"""How things ended: what is remembered of it, and what that keeps from being done again.

1. A worker's death, and a reload that was refused before it began, are remembered beside the rollouts.
2. A release that was rolled back in its probation is marked, and a reload to it is refused: the symlink may still name
   it. Another directory, another option, variable or interpreter, or changed code make another release of it.
3. Who insists gets it. The mark goes when it is put into service again, and with the service itself, at a stop.
"""

from __future__ import annotations

from stillup.core.amounts import amount
from stillup.core.events import RefusalNoted, ReloadAsked
from stillup.core.failures import described, said_by_app
from stillup.core.model import Failure, Fleet, Generation, Release, Rollout, Worker
from stillup.core.outcome_records import LONGEST_MESSAGE, Death, RefusedReload, RolledBackRelease, with_newest
from stillup.core.release import identity
from stillup.core.setting_changes import Effect
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused, Unchanged

REFUSALS_TO_NOTE = frozenset({"release", "configuration", "rolled-back-before"})
"""Codes of what is wrong with what was to run, rather than with when it was asked for."""


def check_wanted(fleet: Fleet, event: ReloadAsked) -> None:
    """See that what a reload asks for is to be brought.

    Raises:
        Unchanged: as ``check_changed``, where that is asked.
        Refused: as ``check_not_rolled_back``, unless somebody insists.
    """
    if event.if_changed:
        check_changed(fleet, event)
    if not event.force:
        check_not_rolled_back(fleet, event.release)


def check_not_rolled_back(fleet: Fleet, release: Release) -> None:
    """See that a release is none that was rolled back.

    Raises:
        Refused: ``rolled-back-before``.
    """
    mark = next((one for one in fleet.rolled_back if one.identity == identity(release)), None)
    if mark is not None:
        message = (
            f"{release.label} was rolled back before: as gen {mark.generation} its workers crashed "
            f"({amount(mark.deaths, 'death')}), and nothing of it has changed since: code, interpreter, options, "
            "environment. If what it lacked is there now, 'stillup reload --force' deploys it again"
        )
        raise Refused(message, code="rolled-back-before")


def check_changed(fleet: Fleet, event: ReloadAsked) -> None:
    """See that a reload would bring something else than what serves, or is being brought already.

    Raises:
        Unchanged: it would not.
    """
    if event.configured is not None and any(one.effect is Effect.APPLIED for one in event.configured.changes):
        return
    brought: Rollout | Generation | None = fleet.pending or fleet.serving
    if brought is not None and identity(brought.release) == identity(event.release):
        raise Unchanged(f"{event.release.label} {'is being brought' if fleet.pending else 'serves'} already")


def mark_rolled_back(transition: Transition, rollout: Rollout, generation: Generation) -> None:
    """Remember that a generation's release was rolled back."""
    unmark(transition, generation.release)
    mark = RolledBackRelease(identity(generation.release), generation.id, rollout.deaths)
    transition.fleet = replace(transition.fleet, rolled_back=with_newest(transition.fleet.rolled_back, mark))


def unmark(transition: Transition, release: Release) -> None:
    """Forget that a release was rolled back."""
    marks = transition.fleet.rolled_back
    if marks:
        this = identity(release)
        transition.fleet = replace(transition.fleet, rolled_back=tuple(one for one in marks if one.identity != this))


def note_death(transition: Transition, worker: Worker, failure: Failure) -> None:
    """Remember that a worker has ended by itself."""
    how = described(replace(failure, worker=""))
    death = Death(worker.name, worker.pid, how[:LONGEST_MESSAGE], transition.now)
    transition.fleet = replace(transition.fleet, deaths=with_newest(transition.fleet.deaths, death))


def tell_of_death(transition: Transition, worker: Worker, failure: Failure) -> None:
    """Note a death that nobody has ordered, and say so."""
    note_death(transition, worker, failure)
    transition.announce(
        "worker.died",
        worker=worker.name,
        pid=worker.pid,
        why=described(failure),
        message=said_by_app(failure),
        output=failure.output,
    )


def note_refusal(transition: Transition, event: RefusalNoted) -> None:
    """Remember a reload that was refused before it began, and tell of it."""
    refusal = RefusedReload(event.why, event.code, event.message[:LONGEST_MESSAGE], transition.now)
    transition.fleet = replace(transition.fleet, refused=with_newest(transition.fleet.refused, refusal))
    transition.announce("reload.refused", why=event.why, reason=event.code, message=event.message)
