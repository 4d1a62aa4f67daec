"""What has run, as the control API shows it."""

from __future__ import annotations

import msgspec


class RevisionView(msgspec.Struct, frozen=True):
    """A generation that was brought, or was to be."""

    generation: int
    release: str
    outcome: str
    """``serves``, ``succeeded``, ``aborted`` or ``rolled-back``."""
    ago: float
    """Seconds since its cut-over, or since it was given up."""
    rollout: int
    why: str
    reason: str
    rolls_back: int | None
    """The rollout that this one took back."""
    can_return: bool
    """Whether ``rollback`` may be asked for it: it has served, and its release is known; the code may be gone since."""
