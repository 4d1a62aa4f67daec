"""When this process stood still, as it does where the whole machine does: no time that a service has taken."""

from __future__ import annotations

import threading
import time
from typing import Self

LOOK = 0.002
"""Seconds between two looks at the clock."""
LATE = 0.02
"""Seconds over due from which on a look tells of a pause."""


class OwnPauses:
    """The pauses of the tests' process, while it is entered."""

    def __init__(self) -> None:
        self._looked = 0.0
        self._pauses: list[tuple[float, float]] = []
        """When each began and ended."""
        self._look_now = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._looked = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def since(self, at: float) -> float:
        """Seconds from that moment on in which it stood still."""
        self._look()
        return sum(max(0.0, end - max(at, begin)) for begin, end in self._pauses)

    def _run(self) -> None:
        while not self._done.wait(LOOK):
            self._look()

    def _look(self) -> None:
        with self._look_now:
            now = time.monotonic()
            if now - self._looked > LOOK + LATE:
                self._pauses.append((self._looked, now))
            self._looked = now
