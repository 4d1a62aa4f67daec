"""Light load that never stops: connections that are kept, and ones that are made anew, from the first to the last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.system.clients import Ended, Peer
from tests.system.harness import eventually

PAUSE = 0.04
"""Seconds between two requests of one client."""


class Traffic:
    """Clients that ask and are answered until the end, or until the first thing that goes wrong for them."""

    def __init__(self, address: str, kept: int = 6, fresh: int = 2) -> None:
        self.address = address
        self.failures: list[str] = []
        self.pids: list[int] = []
        """Who gave each answer, in the order of the answers."""
        self.at: list[float] = []
        """When each came, by the monotonic clock."""
        self._noting = threading.Lock()
        self._done = threading.Event()
        ways = [self._keep] * kept + [self._come_anew] * fresh
        self._threads = [threading.Thread(target=self._run, args=(way,)) for way in ways]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.goes_on()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert not self.failures

    def goes_on(self, count: int = 40) -> None:
        """See that nothing has failed, and that many more requests don't fail either."""
        wanted = len(self.pids) + count
        eventually(lambda: self.failures or len(self.pids) >= wanted, f"{count} more answers")
        assert not self.failures

    def moves_to(self, pids: set[int]) -> None:
        """Wait until these alone give the answers."""

        def moved() -> bool:
            newest = self.pids[-40:]
            return len(newest) == 40 and set(newest) <= pids

        eventually(lambda: self.failures or moved(), f"answers from {pids}")
        assert not self.failures

    def first_by(self, pids: set[int], since: float) -> float:
        """Seconds from a moment until one of these gave an answer."""
        with self._noting:
            return next(at for pid, at in zip(self.pids, self.at, strict=True) if pid in pids and at > since) - since

    def _run(self, way: Callable[[], None]) -> None:
        try:
            way()
        except (Ended, OSError, AssertionError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def _keep(self) -> None:
        with Peer(self.address) as peer:
            while not self._done.wait(PAUSE):
                self._ask(peer)

    def _come_anew(self) -> None:
        while not self._done.wait(PAUSE):
            with Peer(self.address) as peer:
                self._ask(peer)

    def _ask(self, peer: Peer) -> None:
        answer = peer.get()
        assert (answer.status, answer.closes) == (200, False), answer
        with self._noting:
            self.pids.append(answer.pid)
            self.at.append(time.monotonic())
