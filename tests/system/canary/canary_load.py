"""Load on a service with a canary: what the app answers with 500 is counted apart from what fails."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from tests.system.clients import Ended, Peer
from tests.system.harness import eventually

KEPT, FRESH = 10, 4
PAUSE = 0.03
"""Seconds between two requests of one client."""


class CanaryLoad:
    """Clients that keep their connections, and such as come anew, until the end; each goes on after a failure."""

    def __init__(self, address: str, fresh: int = FRESH) -> None:
        self.address = address
        self.failures: list[str] = []
        """What went wrong for a client beside a 500 of the app's: a connection that ended, or was told to."""
        self.answers: Counter[int] = Counter()
        """By generation."""
        self.errors: Counter[int] = Counter()
        """Of these, with 500."""
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(place < KEPT,)) for place in range(KEPT + fresh)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.answers.total() >= len(self._threads), "the first answers")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def moves_to(self, generation: int) -> None:
        """Wait until that generation alone answers: every client has been there, and nobody elsewhere since."""

        def alone() -> bool:
            others = self.answers.total() - self.answers[generation]
            before = self.answers[generation]
            eventually(lambda: self.answers[generation] >= before + 4 * (KEPT + FRESH), f"gen {generation} answers")
            return self.answers.total() - self.answers[generation] == others

        eventually(alone, f"gen {generation} alone answers")

    def _run(self, keep: bool) -> None:
        while not self._done.is_set():
            try:
                with Peer(self.address) as peer:
                    self._ask(peer)
                    while keep and not self._done.wait(PAUSE):
                        self._ask(peer)
            except (Ended, OSError) as error:
                with self._lock:
                    self.failures.append(f"{type(error).__name__}: {error}")
            self._done.wait(PAUSE)

    def _ask(self, peer: Peer) -> None:
        answer = peer.get()
        with self._lock:
            self.answers[answer.generation] += 1
            self.errors[answer.generation] += answer.status == 500
            if answer.status not in (200, 500) or answer.closes:
                self.failures.append(f"{answer}")
