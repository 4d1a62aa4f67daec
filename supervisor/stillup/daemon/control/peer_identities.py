"""Which process is at the other end of a connection: found out once, right after accept(), in a thread.

Early, so that the process still lives; in a thread, since reading its memory (proc(5)) may wait for a disk.
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
from typing import Final

import msgspec

from stillup.core.access import Principal
from stillup.core.values import replace
from stillup.daemon.state.thread_wait import are_done
from stillup.host import peer
from stillup.host.peer import Peer
from stillup.host.processes import LIMIT, block_handled

THREADS: Final = 4
"""Processes that are looked at at a time. One of these is for root and our own user, since a look may have no end."""
MOST_OF_ONE: Final = 2
"""Those of one user."""
MOST_PENDING_OF_ONE: Final = 64
"""Processes of one user that wait for a look or have one; one more has none, so that a crowd costs no more descriptors
than that."""
FOR_FEW: Final = 16
"""Beyond that, of processes that have less than FEW: one that connects and connects keeps no other waiting."""
FEW: Final = 4
MOST_PENDING: Final = 128
"""Those of all users but root and our own."""
MOST_KNOWN: Final = 16
"""Processes that workers have started and that are known again, each by a descriptor."""
PATIENCE: Final = 2.0
"""Seconds that a look may take."""


class Identity:
    """Who is behind a connection."""

    def __init__(self, principal: Principal, look: asyncio.Future[Principal] | None = None) -> None:
        """Know ``principal`` by the kernel's word, and more when ``look`` is done."""
        self.principal = principal
        self._look = look

    def known(self) -> Principal:
        """The principal as well as it is known now."""
        return self._look.result() if self._look is not None and self._look.done() else self.principal

    async def seen(self) -> Principal:
        """The principal as well as it is known once it was looked at, or that took too long."""
        if self._look is None:
            return self.principal
        if await are_done({self._look}, PATIENCE):
            return self._look.result()
        return replace(self.principal, unseen="its process does not let itself be read")


class Identities:
    """Finds out who connects, with at most THREADS looks into processes at a time."""

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
        self._started_by_workers: dict[int, Peer] = {}
        """By pid. It owns them."""
        self._of_process: Counter[tuple[int, int]] = Counter()
        """The same by user and pid."""
        self._looks: Counter[int] = Counter()

    def is_worker(self, pid: int) -> bool:
        """Whether a worker has that pid now, or a process that was started by one and was looked at before."""
        if pid in self._workers():
            return True
        known = self._started_by_workers.get(pid)
        return known is not None and known.lives()

    def meet(self, connection: socket.socket) -> Identity:
        """Begin to find out who has connected. Does not block.

        Raises:
            OSError: nothing is connected any more.
        """
        held = peer.hold(connection)
        if held.pidfd < 0:
            return Identity(held.principal)
        workers = self._workers()
        if self.is_worker(held.principal.pid) and held.lives():  # then that number is its own, and all is known
            held.close()
            return Identity(replace(held.principal, for_worker=True))
        uid = held.principal.uid
        process = uid, held.principal.pid
        if trouble := self._cannot_look(process):
            held.close()
            return Identity(replace(held.principal, unseen=trouble))
        job = _Job(held, workers, self._loop.create_future())
        self._pending[uid] += 1
        self._of_process[process] += 1
        self._waiting.append(job)
        self._begin()
        return Identity(held.principal, job.look)

    def _cannot_look(self, process: tuple[int, int]) -> str:
        """Why that process of that user cannot be looked at now; empty if it can."""
        try:
            while self._threads < THREADS:
                # Not an executor's: the interpreter waits for those at its end, and a look may have none.
                threading.Thread(target=self._work, name="peer", daemon=True).start()
                self._threads += 1
        except RuntimeError as error:  # those that there are will do
            return "" if self._threads else f"{error} ({LIMIT})"
        uid, _ = process
        most = MOST_PENDING_OF_ONE + (FOR_FEW if self._of_process[process] < FEW else 0)
        too_many = self._pending[uid] >= most
        if uid not in self._privileged:
            too_many = too_many or self._of_others(self._pending) >= MOST_PENDING
        return "too many others have just connected" if too_many else ""

    def _of_others(self, count: Counter[int]) -> int:
        """How many are neither root's nor our own user's."""
        return sum(number for uid, number in count.items() if uid not in self._privileged)

    def _begin(self) -> None:
        """Have those looked at whose turn it is, as long as there are threads: of whom the fewest wait, the first."""
        for job in sorted(self._waiting, key=lambda job: self._of_process[job.process]):
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
        self._of_process[job.process] -= 1
        if not self._of_process[job.process]:
            del self._of_process[job.process]
        self._begin()
        self._keep(job.held, found)
        job.look.set_result(found)

    def _keep(self, held: Peer, found: Principal) -> None:
        """Know again what a worker has started, as long as it lives: by a pidfd, since its number may be another's."""
        if not found.for_worker or (found.pid in self._started_by_workers and self.is_worker(found.pid)):
            held.close()
            return
        kept = self._started_by_workers
        if found.pid in kept or len(kept) >= MOST_KNOWN:
            kept.pop(found.pid if found.pid in kept else next(iter(kept))).close()
        kept[found.pid] = held

    def close(self) -> None:
        """Look at nobody any more."""
        for held in self._started_by_workers.values():
            held.close()
        self._started_by_workers.clear()
        for _ in range(self._threads):
            self._jobs.put(None)


class _Job(msgspec.Struct, frozen=True):
    """A look. Owns what is held until it is done."""

    held: Peer
    workers: Container[int]
    look: asyncio.Future[Principal]

    @property
    def process(self) -> tuple[int, int]:
        """The uid and pid of who is looked at."""
        return self.held.principal.uid, self.held.principal.pid
