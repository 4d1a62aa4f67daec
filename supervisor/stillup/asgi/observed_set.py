"""A set that can be made to say when something leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class ObservedSet(set[T]):
    """Any set, until it is observed: each connection leaves one, and pays what leaving costs."""

    def observe(self, left: Callable[[T], None]) -> None:
        """Call ``left`` from now on with whatever leaves."""

        def discard(element: T) -> None:
            set.discard(self, element)
            left(element)

        self.discard = self.remove = discard  # type: ignore[method-assign, assignment]

    def observe_no_more(self) -> None:
        """Be any set again."""
        vars(self).pop("discard", None)
        vars(self).pop("remove", None)
