"""Who is at the other end, by the kernel's word, with real processes at the other end."""

from __future__ import annotations

import io
import os
import resource
import secrets
import select
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from stillup.core.access import ANYBODY, Principal
from stillup.core.values import replace
from stillup.host import peer as host_peer
from stillup.host.peer import GONE, Peer, hold, is_process, principal
from stillup.host.processes import started
from tests.children import spawned

pytestmark = pytest.mark.usefixtures("no_leak")

DIAL = """
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect("\\0" + sys.argv[1])
sock.recv(1)
"""


@dataclass
class Dialled:
    """A process, its pidfd, and our end of the connection that it made."""

    process: subprocess.Popen[bytes]
    pidfd: int
    sock: socket.socket

    def end(self) -> None:
        """Have it exit, and wait for that, but leave it unreaped."""
        self.sock.shutdown(socket.SHUT_RDWR)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        assert poll.poll(20_000)


@contextmanager
def dialled(*become: str, code: str = DIAL) -> Iterator[Dialled]:
    """A child that has connected; ``become``: the words before its command."""
    name = f"stillup-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        listener.settimeout(20)
        with spawned([*become, sys.executable, "-c", code, name]) as process:
            pidfd = os.pidfd_open(process.pid)
            sock, _ = listener.accept()
            with sock:
                yield Dialled(process, pidfd, sock)
            os.close(pidfd)


def test_principal() -> None:
    """The peer's pid, uid and gid are those of the process that connected."""
    with dialled() as peer:
        assert principal(peer.sock) == Principal(
            uid=os.geteuid(), gid=os.getegid(), pid=peer.process.pid, groups=frozenset(os.getgroups())
        )


def test_principal_of_a_pair() -> None:
    """The peer of a socket pair is whoever made it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        assert principal(here).pid == os.getpid()


def test_is_process() -> None:
    """The process that connected is the peer."""
    with dialled() as peer:
        assert is_process(peer.sock, peer.pidfd, peer.process.pid)


def test_is_another_process() -> None:
    """Another process is not the peer, though it is our child as well, whichever of pid and pidfd is its own."""
    with dialled() as peer, dialled() as other:
        assert not is_process(peer.sock, other.pidfd, other.process.pid)
        assert not is_process(peer.sock, other.pidfd, peer.process.pid)
        assert not is_process(peer.sock, peer.pidfd, other.process.pid)


def test_is_nobody_any_more() -> None:
    """A process that has ended and was reaped is nobody, though its connection names it still."""
    with dialled() as peer:
        peer.end()
        peer.process.wait(20)
        assert principal(peer.sock).pid == peer.process.pid
        assert not is_process(peer.sock, peer.pidfd, peer.process.pid)


def test_descriptor_of_no_process() -> None:
    """A descriptor that is no pidfd stands for nobody."""
    with dialled() as peer:
        assert not is_process(peer.sock, peer.sock.fileno(), peer.process.pid)


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
LOOK = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""Our interpreter may be where only root may look."""


def someone(*groups: int) -> tuple[str, ...]:
    """The words that make a command that of uid 12345 and gid 12346 in these groups."""
    these = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ("setpriv", "--reuid=12345", "--regid=12346", these, *LOOK)


@NEEDS_ROOT
@pytest.mark.parametrize("count", [0, 1, 256, 257, 5000])
def test_groups(count: int) -> None:
    """All supplementary groups are known, also those of somebody in more than Python's getsockopt() has room for."""
    groups = range(100_000, 100_000 + count)
    with dialled(*someone(*groups)) as peer:
        assert principal(peer.sock) == Principal(12345, 12346, peer.process.pid, frozenset(groups))


@NEEDS_ROOT
def test_the_largest_ids() -> None:
    """Uids and gids are unsigned."""
    with dialled("setpriv", "--reuid=4294967294", "--regid=4294967293", "--groups=4294967292", *LOOK) as peer:
        who = principal(peer.sock)
    assert (who.uid, who.gid, who.groups) == (4294967294, 4294967293, frozenset({4294967292}))


def test_nobody_over_tcp() -> None:
    """Of a client over TCP nothing is known, and no descriptor is spent on it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        sock, _ = listener.accept()
        with sock:
            assert hold(sock) == Peer(ANYBODY)
            assert hold(sock).identify(set(), "") == ANYBODY


@contextmanager
def held(peer: Dialled) -> Iterator[Peer]:
    found = hold(peer.sock)
    yield found
    found.close()


OLD_KERNEL = pytest.mark.parametrize("option", [77, 9999], ids=["SO_PEERPIDFD", "pidfd_open"])
"""Before Linux 6.5 there is no such option."""


@OLD_KERNEL
def test_identify(monkeypatch: pytest.MonkeyPatch, option: int) -> None:
    """Program and login uid of a process that lives are those in /proc."""
    monkeypatch.setattr(host_peer, "SO_PEERPIDFD", option)
    with dialled() as peer, held(peer) as found:
        who = found.identify(set(), "/run/x/handoff.sock")
    assert who.exe == os.path.realpath(sys.executable)
    file = Path("/proc/self/loginuid")
    login = int(file.read_text()) if file.exists() else 2**32 - 1
    assert who.login_uid == (login if login != 2**32 - 1 else None)
    assert (who.for_worker, who.unseen) == (False, "")


@OLD_KERNEL
@pytest.mark.parametrize("reaped", [False, True])
def test_identify_the_dead(monkeypatch: pytest.MonkeyPatch, option: int, reaped: bool) -> None:
    """Of a process that has ended since it connected nothing is told but the kernel's word."""
    monkeypatch.setattr(host_peer, "SO_PEERPIDFD", option)
    with dialled() as peer, held(peer) as found:
        peer.end()
        if reaped:
            peer.process.wait(20)
        who = found.identify({peer.process.pid}, "")
        assert who == replace(found.principal, unseen=GONE)
        assert who.pid == peer.process.pid
        with held(peer) as late:
            assert late.identify({peer.process.pid}, "") == who


def test_a_reused_pid() -> None:
    """Another process that has the number by now is not blamed: not its program, nor that it is a worker."""
    with dialled() as peer, dialled() as other:
        peer.end()
        number = replace(principal(peer.sock), pid=other.process.pid)
        who = Peer(number, peer.pidfd).identify({other.process.pid}, "")
        assert (who.exe, who.login_uid, who.for_worker, who.unseen) == ("", None, False, GONE)


def test_a_pid_that_was_reused_before_it_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel gives no pidfd of the peer, one that was started after it was held is another process."""
    monkeypatch.setattr(host_peer, "SO_PEERPIDFD", 9999)
    with dialled() as peer, held(peer) as found:
        assert found.latest is not None
        earlier = replace(found, latest=started(peer.process.pid) - 1)
        assert earlier.identify(set(), "").unseen == GONE
        assert found.identify(set(), "").unseen == ""


def test_no_descriptor_to_look_with() -> None:
    """Without a descriptor the principal is known, and why nothing else is."""
    with dialled() as peer:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            found = hold(peer.sock)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert found == Peer(replace(principal(peer.sock), unseen="Too many open files"))
        with held(peer) as found:
            resource.setrlimit(resource.RLIMIT_NOFILE, (found.pidfd + 1, before[1]))
            try:
                who = found.identify(set(), "")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert who == replace(found.principal, unseen="Too many open files")


FORKED = """
import os
def fork():
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        os.sched_yield()
fork()
os.setsid()
fork()
"""
"""Before DIAL: twice the child of a parent that has ended, and so nobody's here."""


def test_a_worker_and_its_children() -> None:
    """A worker is known by its pid, and what it has started by its line of parents."""
    with dialled() as peer, held(peer) as found:
        assert found.identify({peer.process.pid}, "").for_worker
        assert found.identify({os.getpid()}, "").for_worker
        assert not found.identify({2**22}, "").for_worker


@pytest.mark.parametrize("ours", [True, False])
def test_a_grandchild_that_has_left_the_line(monkeypatch: pytest.MonkeyPatch, ours: bool) -> None:
    """A process that forked twice is known by the hand-off socket in its environment, unless that is another one's."""
    monkeypatch.setenv("STILLUP_HANDOFF", "/run/x/handoff.sock" if ours else "/run/x/handoff.sock2")
    with dialled(code=FORKED + DIAL) as peer, held(peer) as found:
        assert found.principal.pid != peer.process.pid
        assert found.identify({peer.process.pid}, "/run/x/handoff.sock").for_worker is ours


@pytest.mark.parametrize("size", [8, 9, 10, 11, 1000, 1 << 20])
def test_a_large_environment(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The variable is found wherever the parts end in which it is searched, and nothing that only resembles it."""
    variable = "STILLUP_HANDOFF=/run/x/handoff.sock"
    text = b"\0".join((b"A=" + b"x" * size, variable.encode() + b"2", b"X" + variable.encode(), b"B=y" * size, b""))
    for ours, content in (
        (False, text),
        (True, text + variable.encode() + b"\0"),
        (True, variable.encode() + b"\0" + text),
    ):
        for ending in (content, content.removesuffix(b"\0")):
            here = io.BytesIO(ending)
            monkeypatch.setattr(host_peer, "open", lambda *_, here=here, **__: here, raising=False)
            monkeypatch.setattr(host_peer, "AT_ONCE", max(len(variable) // 4, size // 7))
            assert host_peer._has_variable(1, variable) is ours


def test_a_search_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of empty variables are no millions of objects."""
    endless = io.BytesIO(bytes(2 * host_peer.MOST_ENVIRONMENT))
    monkeypatch.setattr(host_peer, "open", lambda *_, **__: endless, raising=False)
    tracemalloc.start()
    try:
        assert host_peer._has_variable(1, "STILLUP_HANDOFF=/run/x/handoff.sock") is False
        assert tracemalloc.get_traced_memory()[1] < 4 * host_peer.AT_ONCE
    finally:
        tracemalloc.stop()


CLOSED = """
import ctypes
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
"""
"""Before DIAL: PR_SET_DUMPABLE, as programs do that have secrets."""

LOOK_AT_IT = """
import os, socket, subprocess, sys
from stillup.host.peer import hold
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
    listener.bind("")
    listener.listen()
    with subprocess.Popen([sys.executable, "-c", sys.argv[1], listener.getsockname()[1:].decode()]) as process:
        with listener.accept()[0] as sock:
            held = hold(sock)
            for suspects in ({os.geteuid()}, set()):
                print(repr(held.identify(set(), "/run/x/handoff.sock", suspects).unseen))
            print(held.identify({process.pid}, "/run/x/handoff.sock", {os.geteuid()}).for_worker)
"""


@pytest.mark.parametrize(("code", "unseen"), [(CLOSED + DIAL, host_peer.UNREADABLE), (DIAL, "")])
def test_an_environment_that_cannot_be_read(code: str, unseen: str) -> None:
    """A process that hides it may be a worker's child, if it has a worker's uid; no other may be."""
    become = () if os.geteuid() else someone()
    argv = [*become, sys.executable, "-c", LOOK_AT_IT, code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines() == [repr(unseen), "''", "True"]


def test_a_line_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a parent has ended, its child's new parent is the next; where it is only hidden, the line ends there."""
    lines: dict[int, list[int | None]] = {9: [8, 5], 8: [None], 5: [1]}
    monkeypatch.setattr(host_peer, "_parent", lambda pid: lines[pid].pop(0))
    assert host_peer._descends_from(9, {5})
    lines = {9: [8, 8], 8: [None]}
    assert not host_peer._descends_from(9, {5})
    lines = {9: [8, 5], 8: [7, None], 7: [None]}
    assert host_peer._descends_from(9, {5})
    lines = {9: [None]}
    assert not host_peer._descends_from(9, {5})


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hides behind more ancestors than anybody has is taken for a worker's."""
    monkeypatch.setattr(host_peer, "_parent", lambda pid: pid + 1)
    assert host_peer._descends_from(9, {5})
