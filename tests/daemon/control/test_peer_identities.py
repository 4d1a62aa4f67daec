"""Who is behind a connection: looked at beside the loop, for so long, and so many at a time."""

from __future__ import annotations

import os
import queue
import resource
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stillup.core.access import Principal
from stillup.daemon.control import peer_identities
from stillup.daemon.control.peer_identities import Identities, Identity
from stillup.host import peer
from stillup.host.peer import Peer
from tests.asgi.event_loops import until
from tests.host.conftest import open_descriptors

pytestmark = pytest.mark.usefixtures("no_leak")


@contextmanager
def looking(workers: Container[int] = ()) -> Iterator[Identities]:
    found = Identities(lambda: workers, "/run/x/handoff.sock", os.geteuid())
    yield found
    found.close()


@contextmanager
def connected() -> Iterator[socket.socket]:
    """Our end of a connection to ourselves."""
    here, there = socket.socketpair()
    with here, there:
        yield here


async def test_seen() -> None:
    """The kernel's word is there at once, the rest soon; and again for the next request."""
    with looking() as found, connected() as sock:
        identity = found.meet(sock)
        assert (identity.principal.pid, identity.principal.exe) == (os.getpid(), "")
        seen = await identity.seen()
        assert (seen.exe, seen.for_worker, seen.unseen) == (os.readlink("/proc/self/exe"), False, "")
        assert await identity.seen() is seen


async def test_a_worker_is_seen() -> None:
    """One of those that are workers when it connects."""
    with looking({os.getpid()}) as found, connected() as sock:
        assert (await found.meet(sock).seen()).for_worker


class Slow:
    """Looks that do not end until they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let = threading.Event()
        monkeypatch.setattr(Peer, "identify", self._identify)

    def _identify(self, *_: object) -> Principal:
        assert self.let.wait(20)
        return Principal(0, 0, 0)


async def test_a_look_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for, and nothing is known but the kernel's word; when it ends it counts."""
    slow = Slow(monkeypatch)
    monkeypatch.setattr(peer_identities, "PATIENCE", 0.01)
    with looking() as found, connected() as sock:
        identity = found.meet(sock)
        assert (await identity.seen()).unseen == "its process does not let itself be read"
        slow.let.set()
        monkeypatch.setattr(peer_identities, "PATIENCE", 20)
        assert (await identity.seen()).unseen == ""


async def test_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are looked at, each with a descriptor; of those beyond only the kernel's word is known."""
    slow = Slow(monkeypatch)
    monkeypatch.setattr(peer_identities, "MOST_PENDING_OF_ONE", 10)
    with looking() as found, connected() as sock:
        before = len(open_descriptors())
        crowd = [found.meet(sock) for _ in range(15)]
        assert len(open_descriptors()) == before + 10
        assert [(await identity.seen()).unseen for identity in crowd[10:]] == [
            "too many others have just connected"
        ] * 5
        slow.let.set()
        assert {(await identity.seen()).unseen for identity in crowd[:10]} == {""}
        assert len(open_descriptors()) == before


OWN, OTHER, THIRD = os.geteuid(), 12345, 12346


class Of:
    """Looks at people of several uids. Those of all but ourselves do not end until they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: Identities) -> None:
        self.begun: Counter[int] = Counter()
        self.let = threading.Event()
        self._monkeypatch = monkeypatch
        self._found = found

        def identify(held: Peer, *_: object) -> Principal:
            uid = held.principal.uid
            self.begun[uid] += 1
            assert uid == OWN or self.let.wait(20)
            return held.principal

        monkeypatch.setattr(Peer, "identify", identify)

    def meet(self, sock: socket.socket, uid: int) -> Identity:
        with self._monkeypatch.context() as patch:
            patch.setattr(peer, "hold", lambda _: Peer(Principal(uid, uid, 1), os.open("/dev/null", os.O_RDONLY)))
            return self._found.meet(sock)


async def test_looks_without_end_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user's hang two threads, others' three: our own user and root are looked at all the while."""
    with looking() as found, connected() as sock:
        of = Of(monkeypatch, found)
        stuck = [of.meet(sock, OTHER) for _ in range(4)]
        assert (await of.meet(sock, OWN).seen()).unseen == ""
        await until(lambda: of.begun == {OTHER: 2, OWN: 1})
        stuck += [of.meet(sock, THIRD) for _ in range(4)]
        for _ in range(10):
            assert (await of.meet(sock, OWN).seen()).unseen == ""
        await until(lambda: of.begun == {OTHER: 2, THIRD: 1, OWN: 11})
        of.let.set()
        assert [(await identity.seen()).unseen for identity in stuck] == [""] * 8


async def test_a_crowd_of_one_user_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has too many waiting has one no more; others have theirs, and root and our own user when nobody else has."""
    monkeypatch.setattr(peer_identities, "MOST_PENDING_OF_ONE", 6)
    monkeypatch.setattr(peer_identities, "MOST_PENDING", 8)
    with looking() as found, connected() as sock:
        of = Of(monkeypatch, found)
        crowd = [of.meet(sock, uid) for uid in [OTHER] * 7 + [THIRD] * 3]
        kept_out = [identity for identity in crowd if identity.principal.unseen]
        assert [identity.principal.uid for identity in kept_out] == [OTHER, THIRD]
        assert (await of.meet(sock, OWN).seen()).unseen == ""
        of.let.set()
        for identity in crowd:
            await identity.seen()


NEVER_SEEN = """
import asyncio, socket, threading
from stillup.daemon.control.peer_identities import Identities
from stillup.host.peer import Peer
Peer.identify = lambda *_: threading.Event().wait()
async def main():
    here, there = socket.socketpair()
    Identities(lambda: (), "", 0).meet(here)
asyncio.run(main())
"""


def test_a_look_without_end() -> None:
    """A process that can never be read does not keep the supervisor from ending."""
    subprocess.run([sys.executable, "-c", NEVER_SEEN], check=True, timeout=60)


async def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the reason is told, and the descriptor closed."""

    def start(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with looking() as found, connected() as sock:
        monkeypatch.setattr(threading.Thread, "start", start)
        seen = await found.meet(sock).seen()
        assert seen.unseen.startswith("can't start new thread (a limit of processes")


async def test_no_descriptor() -> None:
    """Without a descriptor the principal is known all the same."""
    with looking() as found, connected() as sock:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            seen = await found.meet(sock).seen()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (seen.pid, seen.unseen) == (os.getpid(), "Too many open files")


async def test_one_process_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one user, whose process connects and connects has its last looks last; another one has its own, and first."""
    monkeypatch.setattr(peer_identities, "MOST_PENDING_OF_ONE", 6)
    order: list[int] = []
    let = threading.Event()

    class Jobs(queue.SimpleQueue[Any]):
        """What the threads are given, whenever they come to it."""

        def put(self, job: Any, block: bool = True, timeout: float | None = None) -> None:
            if job is not None:
                order.append(job.held.principal.pid)
            super().put(job, block, timeout)

    def identify(held: Peer, *_: object) -> Principal:
        assert let.wait(20)
        return held.principal

    monkeypatch.setattr(Peer, "identify", identify)
    with looking() as found, connected() as sock:
        found._jobs = Jobs()

        def meet(pid: int) -> Identity:
            held = Peer(Principal(OWN, OWN, pid), os.open("/dev/null", os.O_RDONLY))
            with monkeypatch.context() as patch:
                patch.setattr(peer, "hold", lambda _: held)
                return found.meet(sock)

        crowd = [meet(77) for _ in range(9)]
        assert [bool(identity.principal.unseen) for identity in crowd] == [False] * 6 + [True] * 3
        other = meet(78)
        assert not other.principal.unseen
        let.set()
        assert (await other.seen()).pid == 78
        for identity in crowd:
            await identity.seen()
        assert order.index(78) <= 3  # after the two that were looked at already, and one whose turn it was


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input ends."""
    words = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        yield process


async def test_what_a_worker_has_started_is_known_again(child: subprocess.Popen[bytes]) -> None:
    """As long as it lives, and by its pidfd: without another look, and nobody is blamed for its number afterwards."""
    assert child.stdin is not None
    with looking({os.getpid()}) as found:
        held = Peer(Principal(OWN, OWN, child.pid), os.pidfd_open(child.pid))
        seen = held.identify({os.getpid()}, "")
        assert seen.for_worker
        found._keep(held, seen)
        found._workers = lambda: ()
        assert found.is_worker(child.pid)
        again = Peer(Principal(OWN, OWN, child.pid), os.pidfd_open(child.pid))
        found._keep(again, seen)
        assert again is not found._started_by_workers[child.pid]
        child.stdin.close()
        child.wait(20)
        assert not found.is_worker(child.pid)
        assert not found.is_worker(os.getpid())


async def test_few_are_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a descriptor, so the oldest is forgotten for another."""
    monkeypatch.setattr(peer_identities, "MOST_KNOWN", 2)
    with looking() as found:
        for pid in (1, 2, 3, 2):
            held = Peer(Principal(OWN, OWN, pid), os.open("/dev/null", os.O_RDONLY))
            found._keep(held, Principal(OWN, OWN, pid, for_worker=True))
        assert sorted(found._started_by_workers) == [2, 3]
