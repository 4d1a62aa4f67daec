"""Who is behind a connection: looked at beside the loop, for so long, and so many at a time."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager

import pytest

from supervisor.core.access import Principal
from supervisor.daemon import identities
from supervisor.daemon.identities import Identities, Identity
from supervisor.host import peer
from supervisor.host.peer import Peer
from tests.asgi.running import until

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
    monkeypatch.setattr(identities, "PATIENCE", 0.01)
    with looking() as found, connected() as sock:
        identity = found.meet(sock)
        assert (await identity.seen()).unseen == "its process does not let itself be read"
        slow.let.set()
        monkeypatch.setattr(identities, "PATIENCE", 20)
        assert (await identity.seen()).unseen == ""


async def test_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are looked at, each with a descriptor; of those beyond only the kernel's word is known."""
    slow = Slow(monkeypatch)
    monkeypatch.setattr(identities, "MOST_PENDING_OF_ONE", 10)
    with looking() as found, connected() as sock:
        before = len(os.listdir("/proc/self/fd"))
        crowd = [found.meet(sock) for _ in range(15)]
        assert len(os.listdir("/proc/self/fd")) == before + 10
        assert [(await identity.seen()).unseen for identity in crowd[10:]] == [
            "too many others have just connected"
        ] * 5
        slow.let.set()
        assert {(await identity.seen()).unseen for identity in crowd[:10]} == {""}
        assert len(os.listdir("/proc/self/fd")) == before


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
    monkeypatch.setattr(identities, "MOST_PENDING_OF_ONE", 6)
    monkeypatch.setattr(identities, "MOST_PENDING", 8)
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
from supervisor.daemon.identities import Identities
from supervisor.host.peer import Peer
Peer.identify = lambda *_: threading.Event().wait()
async def main():
    here, there = socket.socketpair()
    Identities(lambda: (), "", 0).meet(here)
asyncio.run(main())
"""


def test_a_look_without_end() -> None:
    """A process that can never be read does not keep the supervisor from ending."""
    subprocess.run([sys.executable, "-c", NEVER_SEEN], check=True, timeout=20)


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
