"""Whose the other end of a TCP connection is, by the kernel's word, with real processes at the other end."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stillup.errors import StillupError
from stillup.host import socket_owner
from stillup.host.socket_owner import owner
from tests.children import spawned

pytestmark = pytest.mark.usefixtures("no_leak")

DIAL = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(flush=True)
sys.stdin.read()
"""
DIAL_AND_LEAVE = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"POST / HTTP/1.1")
"""


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def peer_of(sock: socket.socket) -> int | None:
    return owner(sock.getpeername(), sock.getsockname())


def test_our_own() -> None:
    """Either end is ours, and that of a socket of IPv6 that connects to an address of IPv4, too."""
    with listening() as listener, socket.create_connection(listener.getsockname()) as client:
        sock, _ = listener.accept()
        with sock:
            assert peer_of(sock) == os.geteuid()
            assert peer_of(client) == os.geteuid()
        with socket.socket(socket.AF_INET6) as other:
            other.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
            sock, _ = listener.accept()
            with sock:
                assert peer_of(sock) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("uid", [12345, 4294967294])
def test_another_users(uid: int) -> None:
    """The uid is that of the process that connected."""
    become = ["setpriv", f"--reuid={uid}", "--clear-groups", "--inh-caps=+dac_read_search"]
    argv = [*become, "--ambient-caps=+dac_read_search", sys.executable, "-IS", "-c", DIAL]
    with listening() as listener:
        argv.append(str(listener.getsockname()[1]))
        with spawned(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE):
            sock, _ = listener.accept()
            with sock:
                assert peer_of(sock) == uid


def test_who_has_left_is_nobody() -> None:
    """Of a closed socket the kernel says uid 0: who sends and hangs up is not root."""
    with listening() as listener:
        argv = [sys.executable, "-IS", "-c", DIAL_AND_LEAVE, str(listener.getsockname()[1])]
        assert subprocess.run(argv, check=False, timeout=30).returncode == 0
        sock, _ = listener.accept()
        with sock:
            assert peer_of(sock) is None
            assert sock.recv(100) == b"POST / HTTP/1.1"
            assert sock.recv(100) == b""
            assert peer_of(sock) is None


def test_who_listens_is_not_the_peer() -> None:
    """Where there is no such connection the kernel would answer with whoever listens at the port."""
    with listening() as listener:
        here = listener.getsockname()
        assert owner(here, ("127.0.0.1", 1)) is None
        assert owner(("127.0.0.1", 1), here) is None


def test_a_kernel_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and nobody's connection."""
    with listening() as listener, socket.create_connection(listener.getsockname()) as client:
        monkeypatch.setattr(socket_owner, "NETLINK_SOCK_DIAG", 31)
        with pytest.raises(StillupError, match="does not say whose"):
            peer_of(client)
    refused = struct.pack("=IHHIIi", 36, socket_owner.NLMSG_ERROR, 0, 0, 0, -1)
    with pytest.raises(StillupError, match="Operation not permitted"):
        socket_owner._owner(refused, 1, 2)
