"""What is remembered of how things ended: values in the fleet, bounded in number and in size, and so on its record.

A rollout that has begun is remembered as itself (``model.Rollout``). Here is what is none, or is not one any more.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

MOST_REMEMBERED: Final = 8
"""Of each kind of these values; the oldest are forgotten."""
LONGEST_MESSAGE: Final = 400
"""Characters of a message that is remembered; the rest is cut."""


class Death(msgspec.Struct, frozen=True):
    """A worker that has ended without having been told to, or in the middle of its drain."""

    worker: str
    """How it was called: ``2.1``."""
    pid: int | None
    how: str
    """The kernel's word, or ours; none of its app's."""
    at: float


class RefusedReload(msgspec.Struct, frozen=True):
    """A reload that was refused before a rollout was made of it: there was nothing that could have been begun."""

    why: str
    """Who asked for it, or what did."""
    code: str
    """Of the refusal, one of ``wire.problem_types``."""
    message: str
    at: float


class RolledBackRelease(msgspec.Struct, frozen=True):
    """A release that crashed in its probation, and was rolled back."""

    identity: str
    """``release.identity``."""
    generation: int
    """That crashed."""
    deaths: int


T = TypeVar("T", Death, RefusedReload, RolledBackRelease)


def with_newest(known: tuple[T, ...], newest: T) -> tuple[T, ...]:
    """The same with one more, and without the oldest of them if there are too many."""
    return known[1 - MOST_REMEMBERED :] + (newest,)  # noqa: RUF005 - which mypy cannot follow
