"""Keeping the garbage collector out of the way while connections come, or leave, in bulk."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Final

QUIET: Final = 0.5
"""Seconds without a new connection that end a bulk."""
_frozen_at_start = gc.get_freeze_count()
"""Objects that were frozen before any app could: 3.12 counts its immortal ones; and those of a template."""


def count_frozen() -> None:
    """What is frozen now was so before any app could."""
    global _frozen_at_start  # noqa: PLW0603 - the collector is the process's, not an object's
    _frozen_at_start = gc.get_freeze_count()


class GcPause:
    """What comes in bulk is there to stay: the collector would go through all of it again and again, for nothing.

    With thousands of connections each of its passes stops every request for tens of milliseconds.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._since = 0
        self._timer: asyncio.TimerHandle | None = None

    def one_more(self) -> None:
        """A connection of a bulk has come."""
        self._since += 1
        if self._timer is None and gc.isenabled():  # an app may do without the collector, and keeps doing so
            gc.disable()
            self._timer = self._loop.call_later(QUIET, self._look)

    def _look(self) -> None:
        if self._since:
            self._since = 0
            self._timer = self._loop.call_later(QUIET, self._look)
            return
        self.end()

    def end(self) -> None:
        """Let the collector work again; in a child that was forked meanwhile, too, where no timer would."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        if gc.get_freeze_count() <= _frozen_at_start:  # else an app has, or the drain, and it stays so
            # What is young goes straight to the oldest generation, as after two passes in which it survived.
            gc.freeze()
            gc.unfreeze()
        gc.enable()


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Have the collector pass over all that is here: it leaves, and most of it without the collector's help."""
    if gc.get_freeze_count() > _frozen_at_start:  # an app has frozen something, and no more is
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # what an app has in cycles is finalized when the process ends
