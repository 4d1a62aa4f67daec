"""The leader's term, a value of the fleet (``core.leader``)."""

from __future__ import annotations

import msgspec


class Term(msgspec.Struct, frozen=True):
    """The time for which one worker leads; once that is over, the last such."""

    number: int = 0
    """Counted from 1; 0: nobody has led yet."""
    worker: int | None = None
    """The serial of who was told to lead; None once it has let go, or has ended."""
    began: float | None = None
    due: float | None = None
    """When who is told to leave has to have let go."""
    given_up: bool = False
    """Whether it was let go unasked."""
