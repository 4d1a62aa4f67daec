"""A set that can be made to say when something leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Watched(set[Any]):
    """Any set, until it is watched: each connection leaves one, and pays what leaving costs."""

    def watch(self, left: Callable[[Any], None]) -> None:
        """Call ``left`` from now on with whatever leaves."""

        def discard(element: Any) -> None:
            set.discard(self, element)
            left(element)

        self.discard = self.remove = discard  # type: ignore[method-assign]
