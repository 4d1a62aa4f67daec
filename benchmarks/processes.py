"""The processes of a stillup from outside: who its workers are, which connections one holds, and what is done to one.

Nothing here asks the supervisor: it may be stopped, or dead.
"""

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

POLL = 0.005
STOPS = 10.0  # seconds until a process that was stopped stands still, or one that was killed is gone
MODULE = "stillup.worker"


@dataclass(frozen=True)
class Grip:
    """A hold on one process, by pidfd: what is done to it is never done to another that has its number by then."""

    pid: int
    pidfd: int = field(repr=False)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def stop(self) -> None:
        """Stop it, and return when it stands still.

        Raises:
            TimeoutError: it does not.
        """
        self.signal(signal.SIGSTOP)
        await until(self.stands_still, STOPS, f"process {self.pid} stands still")

    def go_on(self) -> None:
        """Let it go on where it was stopped."""
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill it, and return when it has ended.

        Raises:
            TimeoutError: it has not.
        """
        self.signal(signal.SIGKILL)
        await until(self.has_ended, STOPS, f"process {self.pid} ends")

    def stands_still(self) -> bool:
        """Whether it is stopped."""
        return _stat(self.pid)[:1] in ("T", "t")

    def has_ended(self) -> bool:
        """Whether it lives no longer (pidfd_open(2): then it is readable)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def holds(self, without: Sequence[int] = ()) -> frozenset[int]:
        """The ports, at their clients' ends, of the TCP connections that it holds; it has to stand still.

        Without those of some of its descriptors, by number.
        """
        sockets = set()
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with suppress(FileNotFoundError):
                target = os.readlink(f"/proc/{self.pid}/fd/{name}")
                if target.startswith("socket:[") and int(name) not in without:
                    sockets.add(target[len("socket:[") : -1])
        return frozenset(port for inode, port in _tcp() if inode in sockets)


@contextmanager
def hold(pid: int) -> Iterator[Grip]:
    """Take hold of a process that lives.

    Raises:
        ProcessLookupError: it does not.
    """
    grip = Grip(pid, os.pidfd_open(pid))
    try:
        yield grip
    finally:
        os.close(grip.pidfd)


@dataclass(frozen=True, order=True)
class WorkerProcess:
    """A worker that lives, by what its command line says."""

    generation: int
    slot: int
    pid: int

    @classmethod
    def read(cls, pid: int, title: str) -> Self | None:
        """The process of that number, if it is a worker of the service of that name."""
        generation, _, slot = _name(pid, title).partition(".")
        # A template and a preloader fork workers, and are none.
        return cls(int(generation), int(slot), pid) if slot.isdecimal() else None


def workers(title: str) -> list[WorkerProcess]:
    """The workers of a service that live, whoever started them; the service's name has to be its own on this host."""
    found = (WorkerProcess.read(pid, title) for pid in _pids())
    return sorted(worker for worker in found if worker is not None)


def preloaders(title: str) -> dict[int, int]:
    """By generation, the pids of the processes that workers are forked from with ``--preload``."""
    found = ((_name(pid, title).partition("."), pid) for pid in _pids())
    return {int(generation): pid for (generation, _, role), pid in found if role == "preload"}


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _name(pid: int, title: str) -> str:
    """What a process of the service is called behind the service's name; empty if it is none, or has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return ""
    return words[-1].removeprefix(f"{title}:") if MODULE in words and words[-1].startswith(f"{title}:") else ""


async def fewest_descriptors(pid: int, looks: int = 10) -> int:
    """How many descriptors a process has open: the least of some looks, since one may be about to be closed."""
    fewest = len(os.listdir(f"/proc/{pid}/fd"))
    for _ in range(looks - 1):
        await asyncio.sleep(POLL)
        fewest = min(fewest, len(os.listdir(f"/proc/{pid}/fd")))
    return fewest


async def until(met: Callable[[], bool], deadline: float, what: str, poll: float = POLL) -> None:
    """Look until something is so.

    Raises:
        TimeoutError: it is not within `deadline` seconds.
    """
    end = time.monotonic() + deadline
    while not met():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline:g} s: {what}")
        await asyncio.sleep(poll)


def _stat(pid: int) -> str:
    """What proc_pid_stat(5) says behind the program's name, its state first; empty of one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].lstrip()
    except OSError:
        return ""


def _tcp() -> Iterator[tuple[str, int]]:
    """The inode and the other end's port of every TCP socket over IPv4 (proc_pid_net(5))."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        port = int(words[2].rpartition(":")[2], 16)
        if port:  # a listener has none
            yield words[9], port
