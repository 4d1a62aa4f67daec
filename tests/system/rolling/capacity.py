"""How many workers of a service live, and how many accept, by the kernel's word alone, from one instant to the next.

A worker lives while its process does (its command line has the service's name). It accepts while the listener is in
one of its epoll sets (proc_pid_fdinfo(5)): that of one that boots or drains is not. Nobody asks the supervisor, which
may be what is wrong, or dead.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.processes import WorkerProcess

EVERY = 0.02
"""Seconds between two samples."""
DOUBT = 0.1
"""Seconds for which too few have to accept, look after look: one look is no instant, and a worker that has no free
descriptor lets the listener be for a moment."""


class CapacityWatch:
    """Samples a service from entering to leaving; leaving without an error demands that the bounds have held."""

    def __init__(self, title: str, address: str, *, most: int, least: int) -> None:
        """Watch the service of that name.

        Args:
            title: the service's name, which no other on this host has.
            address: of its listener.
            most: workers that may live at once.
            least: workers that have to accept at any time.
        """
        self._title = title
        self._listener = _listener(int(address.rpartition(":")[2]))
        self.most = most
        self.least = least
        """May be lowered while somebody is killed: such a death is nobody's decision."""
        self.most_lived = 0
        self.least_accepted = 1 << 30
        self.samples = 0
        self.broken: list[str] = []
        self._others: set[str] = set()
        """Processes that were there before and are no workers: they will never be."""
        self._sets: dict[int, list[str]] = {}
        """The epoll descriptors of each worker, once it has some."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        there = {worker.pid for worker in self._workers()}
        self._others = {name for name in os.listdir("/proc") if name.isdecimal() and int(name) not in there}
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        if kind is None:
            assert self.samples, "nothing was sampled"
            assert not self.broken, f"{self}: {self.broken[:5]}"

    def __str__(self) -> str:
        return (
            f"{self.samples} samples: {self.most_lived} lived at most (of {self.most}), "
            f"{self.least_accepted} accepted at least (of {self.least})"
        )

    def _run(self) -> None:
        while not self._done.wait(EVERY):
            self._sample()

    def _sample(self) -> None:
        living = self._workers()
        self.samples += 1
        self.most_lived = max(self.most_lived, len(living))
        if len(living) > self.most:
            self.broken.append(f"{len(living)} live: {_names(living)}")
        accepting, end = self._accepting(living), time.monotonic() + DOUBT
        while len(accepting) < self.least and time.monotonic() < end:
            accepting |= self._accepting(self._workers())
        self.least_accepted = min(self.least_accepted, len(accepting))
        if len(accepting) < self.least:
            self.broken.append(f"{len(accepting)} accept of {_names(living)}: {_names(accepting)}")

    def _workers(self) -> list[WorkerProcess]:
        names = (name for name in os.listdir("/proc") if name.isdecimal() and name not in self._others)
        found = (WorkerProcess.read(int(name), self._title) for name in names)
        return sorted(worker for worker in found if worker is not None)

    def _accepting(self, living: list[WorkerProcess]) -> set[WorkerProcess]:
        return {worker for worker in living if self._accepts(worker.pid)}

    def _accepts(self, pid: int) -> bool:
        try:
            if pid not in self._sets:
                found = [fd for fd in os.listdir(f"/proc/{pid}/fd") if _is_epoll(pid, fd)]
                if found:
                    self._sets[pid] = found
            entries = (Path(f"/proc/{pid}/fdinfo/{fd}").read_text() for fd in self._sets.get(pid, ()))
            return any(self._listener in text for text in entries)
        except OSError:  # it has ended
            return False


def _is_epoll(pid: int, fd: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:[eventpoll]"
    except OSError:
        return False


def _listener(port: int) -> str:
    """What a line of an epoll set says of the socket that listens on that port of 127.0.0.1."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
            return f" ino:{int(words[9]):x} "
    raise AssertionError(f"nobody listens on port {port}")


def _names(workers: list[WorkerProcess] | set[WorkerProcess]) -> str:
    return ", ".join(f"{worker.generation}.{worker.slot}" for worker in sorted(workers)) or "none"
