"""What is waited for before a slot is filled: its next start, and the health of the worker that boots."""

from __future__ import annotations

import msgspec


class Vacancy(msgspec.Struct, frozen=True):
    """A slot that waits for its next worker."""

    deaths: int
    """How many of its workers died young in a row, or were to be replaced young."""
    until: float
    """When it is filled."""
    recycle: str = ""
    """Why the worker that serves in it meanwhile is to be replaced; empty if it waits since one has died."""


class Unhealthy(msgspec.Struct, frozen=True):
    """What the health probe of a worker that boots was answered so far."""

    status: int
    """The last; 0: there is no answer yet."""
    told: int | None = None
    """The one that was announced last; None if none was."""
    told_at: float = 0.0
    """When that was; before it, when the first answer came."""
