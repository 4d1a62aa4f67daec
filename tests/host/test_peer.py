"""Who is at the other end, by the kernel's word, with real processes at the other end."""

from __future__ import annotations

import os
import secrets
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from supervisor.core.access import Principal
from supervisor.host.peer import is_process, principal

pytestmark = pytest.mark.usefixtures("no_leak")

DIAL = """
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect("\\0" + sys.argv[1])
sock.recv(1)
"""


@dataclass
class Peer:
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
def dialled() -> Iterator[Peer]:
    """A child that has connected."""
    name = f"stillup-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        listener.settimeout(20)
        with subprocess.Popen([sys.executable, "-c", DIAL, name]) as process:
            pidfd = os.pidfd_open(process.pid)
            sock, _ = listener.accept()
            with sock:
                yield Peer(process, pidfd, sock)
            os.close(pidfd)


def test_principal() -> None:
    """The peer's pid, uid and gid are those of the process that connected."""
    with dialled() as peer:
        assert principal(peer.sock) == Principal(uid=os.geteuid(), gid=os.getegid(), pid=peer.process.pid)


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
