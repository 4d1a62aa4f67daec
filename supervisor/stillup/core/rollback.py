"""Which release is the one before, and whether it is still what it was.

1. A rollback is a rollout like any other, to the release that served before the one that serves.
2. Asked again it goes further back. Were it the way forth again, who asks for it right after a release was taken back
   by itself would put the one that crashes back into service.
3. It listens where it did if all of that is held still, else where the one does that serves (``core.listeners``).
4. Somebody may say which generation's release it is to be. All rollouts since then are taken back at once.
5. A release that was changed in place is none to go back to: what it was is nowhere any more.
"""

from __future__ import annotations

from stillup.core import listeners
from stillup.core.model import Fleet, Generation, Release, Rollout
from stillup.core.release import overwritten, same
from stillup.errors import Refused, Unchanged


def previous_release(fleet: Fleet, to: int | None = None) -> Release:
    """The release to go back to: the one before, or that of the generation ``to``.

    Raises:
        Refused: nothing serves; ``rollout-in-progress``; or no such release is known (``no-previous-release``).
        Unchanged: what that generation ran serves.
    """
    return _wanted(fleet, to)[0]


def rollback(fleet: Fleet, release: Release, found: str, to: int | None = None) -> int:
    """The number of the rollout that is taken back by going back to a release, with all that came after it.

    Args:
        fleet: all that is known.
        release: what ``previous_release`` said some moments ago.
        found: the fingerprint that it has on the disk now.
        to: the generation whose release it was to be.

    Raises:
        Refused: as ``previous_release``; it has become another meanwhile (``out-of-order``); it was changed in place,
            or removed (``release-overwritten``).
    """
    wanted, rollout = _wanted(fleet, to)
    if wanted != release:
        raise Refused("another release was put into service meanwhile; ask again", code="out-of-order")
    if release.fingerprint != found:
        message = (
            f"{release.label} was changed in place, or removed, since it served: what it was is gone. "
            "Give each release a directory of its own, and let a symlink lead to it"
        )
        raise Refused(message, code="release-overwritten")
    return rollout.id


def _wanted(fleet: Fleet, to: int | None) -> tuple[Release, Rollout]:
    return _previous(fleet) if to is None else _that_of(fleet, to)


def _serving(fleet: Fleet) -> Generation:
    serving, pending = fleet.serving, fleet.pending
    if serving is None:
        raise Refused(f"the service is {fleet.state}: nothing serves that could be rolled back", code="out-of-order")
    if pending is not None:
        message = f"rollout {pending.id} is before its cut-over: 'stillup abort' calls it off, and what serves stays"
        raise Refused(message, code="rollout-in-progress")
    if fleet.plan is not None:
        message = f"rollout {fleet.plan.id} goes back: what served before it comes back; ask again when it has"
        raise Refused(message, code="rollout-in-progress")
    return serving


def _that_of(fleet: Fleet, number: int) -> tuple[Release, Rollout]:
    serving = _serving(fleet)
    brought = next((one for one in reversed(fleet.rollouts) if one.generation == number and one.cut is not None), None)
    if brought is None:
        message = f"no gen {number} is known that served; 'stillup history' lists them"
        raise Refused(message, code="no-previous-release")
    release = release_of(fleet, brought)
    if release.whole and _serves(fleet, release, serving):
        raise Unchanged(f"gen {serving.id} runs {serving.release.label}, as gen {number} did")
    _check_whole(release)
    return listeners.at_hand(fleet, release, serving.release), _after(fleet, brought) or brought


def release_of(fleet: Fleet, brought: Rollout) -> Release:
    """What a rollout brought: whole if it is known still, be it by the rollout that replaced it."""
    after = _after(fleet, brought)
    replaced = after.replaced if after is not None else None
    return brought.release if brought.release.whole or replaced is None else replaced


def _after(fleet: Fleet, brought: Rollout) -> Rollout | None:
    """The first rollout that replaced what this one brought."""
    later = (one for one in fleet.rollouts if one.id > brought.id)
    return next((one for one in later if one.previous == brought.generation and one.cut is not None), None)


def _serves(fleet: Fleet, release: Release, serving: Generation) -> bool:
    release = listeners.at_hand(fleet, release, serving.release)
    return same(release, serving.release) and not overwritten(release, serving.release)


def _check_whole(release: Release) -> None:
    if not release.whole:
        message = f"of {release.label}, which served before, only the name is still known; deploy it again"
        raise Refused(message, code="no-previous-release")


def _previous(fleet: Fleet) -> tuple[Release, Rollout]:
    serving = _serving(fleet)
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
        _check_whole(release)
        if not _serves(fleet, release, serving):
            return listeners.at_hand(fleet, release, serving.release), rollout
    raise Refused(f"no release is known that served before {serving.release.label}", code="no-previous-release")
