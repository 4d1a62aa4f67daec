"""Says where a boot stands that is about to be ended, since it takes too long.

While Python or a system call keeps the loop, ``faulthandler`` writes where each thread is (``worker.__main__`` begins
that, for the import). While the loop lives its own stack says nothing: what is shown then is where the app's tasks
wait. Whether it lives is seen by a beat, which puts the dump of the threads off each time.
"""

from __future__ import annotations

import asyncio
import faulthandler
from types import TracebackType
from typing import Final

from stillup.asgi.tracebacks import show_waits

LATE: Final = 0.05
"""The share of the boot's time that is left when it says where it stands."""
BEAT: Final = 1.0
"""Seconds, at most, between two beats."""


class BootWatch:
    """Watches from ``with`` on, as long as it is entered."""

    def __init__(self, due: float, seconds: float, *, shows_waits: bool) -> None:
        """Watch a boot.

        Args:
            due: when it is to be done, by the loop's clock.
            seconds: that it has in all.
            shows_waits: whether to show where the app's tasks wait if the loop lives near the end.
        """
        self._loop = asyncio.get_running_loop()
        self._due = due
        self._late = due - LATE * seconds
        self._handle: asyncio.TimerHandle | None = None
        self._shows_waits = shows_waits

    def __enter__(self) -> None:
        self._beat()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        faulthandler.cancel_dump_traceback_later()

    def _beat(self) -> None:
        now = self._loop.time()
        if now >= self._late:
            faulthandler.cancel_dump_traceback_later()
            if self._shows_waits:
                show_waits()
            return
        # Not before the next beat is overdue, and not after the deadline.
        faulthandler.dump_traceback_later((self._due - now) * (1 - LATE / 2))
        self._handle = self._loop.call_at(min(now + BEAT, self._late), self._beat)
