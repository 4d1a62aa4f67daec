"""Who is behind each connection to a socket of ours: looked at once, right after accept(), in a thread.

It is early so that the process still lives, and in a thread of its own since reading its memory may wait for its disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import Final

from supervisor.core.access import Principal
from supervisor.host import peer
from supervisor.host.peer import Peer
from supervisor.host.processes import LIMIT, block_handled

THREADS: Final = 4
"""Processes that are looked at at a time. One of these is for root and our own user, since a look may have no end."""
MOST_OF_ONE: Final = 2
"""Those of one user."""
MOST_PENDING_OF_ONE: Final = 64
"""Processes of one user that wait for a look or have one; one more has none, so that a crowd costs no more descriptors
than that."""
MOST_PENDING: Final = 128
"""Those of all users but root and our own."""
PATIENCE: Final = 2.0
"""Seconds that a look may take."""


class Identity:
    """Who is behind a connection."""

    def __init__(self, principal: Principal, look: asyncio.Future[Principal] | None = None) -> None:
        """Know ``principal`` by the kernel's word, and more when ``look`` is done."""
        self.principal = principal
        self._look = look

    async def seen(self) -> Principal:
        """The principal as well as it is known once it was looked at, or that took too long."""
        if self._look is None:
            return self.principal
        done, _ = await asyncio.wait({self._look}, timeout=PATIENCE)
        return (
            self._look.result() if done else replace(self.principal, unseen="its process does not let itself be read")
        )


class Identities:
    """Looks at whoever connects."""

    def __init__(self, workers: Callable[[], Container[int]], handoff: str, worker_uid: int) -> None:
        """Tell workers and what they start by the pids of ``workers`` and the path of the hand-off socket."""
        self._workers = workers
        self._handoff = handoff
        self._privileged = frozenset({0, os.geteuid()})
        self._suspects = frozenset({os.geteuid(), worker_uid})
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        """What the threads are to do now."""
        self._threads = 0
        self._waiting: list[_Job] = []
        self._pending: Counter[int] = Counter()
        """By user: those that wait, and those that are looked at."""
        self._looks: Counter[int] = Counter()

    def meet(self, connection: socket.socket) -> Identity:
        """Begin to look at whoever has connected. Does not block.

        Raises:
            OSError: nothing is connected any more.
        """
        held = peer.hold(connection)
        if held.pidfd < 0:
            return Identity(held.principal)
        uid = held.principal.uid
        if trouble := self._cannot_look(uid):
            held.close()
            return Identity(replace(held.principal, unseen=trouble))
        job = _Job(held, self._workers(), self._loop.create_future())
        self._pending[uid] += 1
        self._waiting.append(job)
        self._begin()
        return Identity(held.principal, job.look)

    def _cannot_look(self, uid: int) -> str:
        """Why nobody of that user can be looked at now; empty if somebody can."""
        try:
            while self._threads < THREADS:
                # Not an executor's: the interpreter waits for those at its end, and a look may have none.
                threading.Thread(target=self._work, name="peer", daemon=True).start()
                self._threads += 1
        except RuntimeError as error:  # those that there are will do
            return "" if self._threads else f"{error} ({LIMIT})"
        too_many = self._pending[uid] >= MOST_PENDING_OF_ONE
        if uid not in self._privileged:
            too_many = too_many or self._of_others(self._pending) >= MOST_PENDING
        return "too many others have just connected" if too_many else ""

    def _of_others(self, count: Counter[int]) -> int:
        """How many are neither root's nor our own user's."""
        return sum(number for uid, number in count.items() if uid not in self._privileged)

    def _begin(self) -> None:
        """Have those looked at whose turn it is: the first that may be, as long as there are threads."""
        for job in tuple(self._waiting):
            uid = job.held.principal.uid
            is_free = self._looks.total() < self._threads
            if uid not in self._privileged:
                is_free = is_free and self._of_others(self._looks) < max(self._threads - 1, 1)
            if is_free and self._looks[uid] < MOST_OF_ONE:
                self._waiting.remove(job)
                self._looks[uid] += 1
                self._jobs.put(job)

    def _work(self) -> None:
        block_handled()
        while (job := self._jobs.get()) is not None:
            found = job.held.identify(job.workers, self._handoff, self._suspects)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._looked, job, found)

    def _looked(self, job: _Job, found: Principal) -> None:
        # Not before: while a thread looks, the pidfd's number would come to mean something else.
        for count in (self._pending, self._looks):
            count[job.held.principal.uid] -= 1
        self._begin()
        job.held.close()
        job.look.set_result(found)

    def close(self) -> None:
        """Look at nobody any more."""
        for _ in range(self._threads):
            self._jobs.put(None)


@dataclass(frozen=True, slots=True)
class _Job:
    """A look. Owns what is held until it is done."""

    held: Peer
    workers: Container[int]
    look: asyncio.Future[Principal]
