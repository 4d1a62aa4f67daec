"""Clients of a gated service, many of them, whose connections move from worker to worker."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.system.clients import Ended, Peer, request
from tests.system.harness import Service, eventually


class ClientGroup:
    """Many clients with a connection each, asked all at once; an equal part of them at each of some workers."""

    def __init__(self, service: Service, stack: ExitStack, size: int, at: Collection[int] = ()) -> None:
        self.service = service
        self.peers: list[Peer] = []
        self.where: dict[Peer, int] = {}
        """The process that gave each its newest answer."""
        pids = at or worker_pids(service).values()
        for pid in pids:
            with frozen([other for other in pids if other != pid]):
                part = [stack.enter_context(Peer(service.address())) for _ in range(size // len(pids))]
                self.peers += part
                for peer in part:
                    self.where[peer] = peer.get().pid

    def ask(self, path: str = "/") -> None:
        for peer in self.peers:
            with suppress(OSError):
                peer.send(request(path))

    def hear(self) -> list[Peer]:
        """Take an answer of each; those who got none, and they are no longer of the group."""
        lost = []
        for peer in self.peers:
            try:
                answer = peer.answer()
            except Ended:
                lost.append(peer)
                self.where.pop(peer, None)
            else:
                assert (answer.status, answer.closes) == (200, False), answer
                self.where[peer] = answer.pid
        self.peers = [peer for peer in self.peers if peer not in lost]
        return lost

    def turn(self, path: str = "/") -> list[Peer]:
        """Let each ask and be answered; those who were not."""
        self.ask(path)
        return self.hear()

    def join(self, other: ClientGroup) -> None:
        self.peers += other.peers
        self.where |= other.where

    def held_by(self, pid: int) -> list[Peer]:
        return [peer for peer in self.peers if self.where[peer] == pid]

    def begin(self, gate: str) -> None:
        """Have a request of each in progress until the gate is open."""
        self.ask(f"/wait?gate={gate}")
        eventually(lambda: self._classes() == {"in-progress": len(self.peers)}, "all of them are in progress")

    def end(self, gate: str) -> None:
        """Open the gate and take all answers."""
        (self.service.folder / gate).touch()
        assert not self.hear()

    def _classes(self) -> Counter[str]:
        return sum((Counter(w.classes) for w in self.service.workers()), Counter())


def worker_pids(service: Service, state: str = "serving") -> dict[str, int]:
    return {worker.id: worker.pid for worker in service.workers(state) if worker.pid is not None}


def until_waiting(service: Service, count: int) -> None:
    eventually(lambda: service.status().crossing.waiting == count, f"{count} connections are in the queue")


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[Callable[[int], None]]:
    """Stop processes until the end, or until what is given here is called with one of them."""

    def thaw(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:  # one that is in the middle of something on another processor goes on for a moment
            eventually(partial(_stands_still, pid), f"pid {pid} stands still")
        yield thaw
    finally:
        for pid in pids:
            thaw(pid)


def _stands_still(pid: int) -> bool:
    """Whether none of its threads runs, or it has ended."""
    states = set()
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            states.add(file.read_text().rpartition(")")[2].split()[0])
    return states <= {"T", "Z", "X"}
