"""Which release is the one before, and whether it is still what it was.

1. A rollback is a rollout like any other, to the release that served before the one that serves.
2. Asked again it goes further back. Were it the way forth again, who asks for it right after a release was taken back
   by itself would put the one that crashes back into service.
3. It listens where it did if all of that is held still, else where the one does that serves (``core.listeners``).
4. A release that was changed in place is none to go back to: what it was is nowhere any more.
"""

from __future__ import annotations

from stillup.core import listeners
from stillup.core.model import Fleet, Release, Rollout
from stillup.core.release import overwritten, same
from stillup.errors import Refused


def previous_release(fleet: Fleet) -> Release:
    """The release to go back to.

    Raises:
        Refused: nothing serves; ``rollout-in-progress``; or no release before is known (``no-previous-release``).
    """
    return _previous(fleet)[0]


def rollback(fleet: Fleet, release: Release, found: str) -> int:
    """The number of the rollout that is taken back by going back to a release.

    Args:
        fleet: all that is known.
        release: what ``previous_release`` said some moments ago.
        found: the fingerprint that it has on the disk now.

    Raises:
        Refused: as ``previous_release``; it has become another meanwhile (``out-of-order``); it was changed in place,
            or removed (``release-overwritten``).
    """
    wanted, rollout = _previous(fleet)
    if wanted != release:
        raise Refused("another release was put into service meanwhile; ask again", code="out-of-order")
    if release.fingerprint != found:
        message = (
            f"{release.label} was changed in place, or removed, since it served: what it was is gone. "
            "Give each release a directory of its own, and let a symlink lead to it"
        )
        raise Refused(message, code="release-overwritten")
    return rollout.id


def _previous(fleet: Fleet) -> tuple[Release, Rollout]:
    serving, pending = fleet.serving, fleet.pending
    if serving is None:
        raise Refused(f"the service is {fleet.state}: nothing serves that could be rolled back", code="out-of-order")
    if pending is not None:
        message = f"rollout {pending.id} is before its cut-over: 'stillup abort' calls it off, and what serves stays"
        raise Refused(message, code="rollout-in-progress")
    if fleet.plan is not None:
        message = f"rollout {fleet.plan.id} goes back: what served before it comes back; ask again when it has"
        raise Refused(message, code="rollout-in-progress")
    generation: int | None = serving.id
    earlier = [one for one in fleet.rollouts if one.cut is not None]
    while (rollout := next((one for one in reversed(earlier) if one.generation == generation), None)) is not None:
        taken_back = fleet.rollout(rollout.rolls_back) if rollout.rolls_back is not None else None
        # A generation that came back from its standby was brought before that, too.
        earlier = [one for one in earlier if one.id < (taken_back or rollout).id]
        if taken_back is not None:
            # It runs what that one replaced, so the one before it is what came before that.
            generation = taken_back.previous
            continue
        release, generation = rollout.replaced, rollout.previous
        if release is None or rollout.rolls_back is not None:
            break
        if not release.whole:
            message = f"of {release.label}, which served before, only the name is still known; deploy it again"
            raise Refused(message, code="no-previous-release")
        release = listeners.at_hand(fleet, release, serving.release)
        if not same(release, serving.release) or overwritten(release, serving.release):
            return release, rollout
    raise Refused(f"no release is known that served before {serving.release.label}", code="no-previous-release")
