"""How long the loop stood still: the machine paused, the process was stopped, or the app held the loop up."""

from __future__ import annotations

import asyncio
from typing import Final

from stillup.core.drain import STANDSTILL

TICK: Final = 0.05
"""Seconds between two looks at the clock."""


class Standstills:
    """What a loop has lost from ``watch`` to ``stop``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._looked = 0.0
        self._lost: list[tuple[float, float]] = []
        """When each was over, and how many seconds it took."""
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look at the clock from now on. Idempotent."""
        if self._timer is None:
            self._looked = self._loop.time()
            self._timer = self._loop.call_later(TICK, self._tick)

    def stop(self) -> None:
        """Look no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def since(self, at: float) -> float:
        """Seconds of standing still that were over after that moment of the loop's time, one that ends now, too."""
        if self._timer is not None:
            self._look()
        return sum(seconds for over, seconds in self._lost if over > at)

    def _tick(self) -> None:
        self._look()
        self._timer = self._loop.call_later(TICK, self._tick)

    def _look(self) -> None:
        now = self._loop.time()
        late = now - self._looked - TICK
        self._looked = now
        if late > STANDSTILL:
            self._lost.append((now, late))
