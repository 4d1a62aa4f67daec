"""What descriptors are called: real ones, by the kernel's word."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from stillup.host.describe import describe

pytestmark = pytest.mark.usefixtures("no_leak")


def _named(make: Callable[[], socket.socket]) -> str:
    with make() as sock:
        said = describe(sock.fileno())
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == sock.type, "it is still open"
        return said


def test_sockets_are_called_as_ss_calls_them(tmp_path: Path) -> None:
    """Kind, address, whether it listens or to whom it is connected; and it stays open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert describe(listener.fileno()) == f"tcp 127.0.0.1:{port} listening"
        with socket.create_connection(("127.0.0.1", port)) as client:
            own = client.getsockname()[1]
            assert describe(client.fileno()) == f"tcp 127.0.0.1:{own} -> 127.0.0.1:{port}"
    assert _named(lambda: socket.create_server(("::1", 0), family=socket.AF_INET6)).startswith("tcp [::1]:")
    assert _named(lambda: socket.socket(type=socket.SOCK_DGRAM)) == "udp 0.0.0.0:0"
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert describe(listener.fileno()) == f"unix stream {path} listening"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0describe-%d" % os.getpid())
        assert describe(listener.fileno()) == f"unix stream @describe-{os.getpid()}"
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        assert describe(here.fileno()) == "unix seqpacket"
    assert _named(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)).startswith("family 16 type 3")


def test_whatever_else_may_come(tmp_path: Path) -> None:
    """A file, a pipe, a memfd, a pidfd, an eventfd; a name of any bytes is text; a closed one is no error."""
    strange = os.fsencode(tmp_path) + b"/log\xff"
    with contextlib.ExitStack() as stack:

        def opened(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        assert describe(opened(os.open(strange, os.O_CREAT | os.O_WRONLY))) == rf"{tmp_path}/log\udcff"
        assert describe(opened(os.memfd_create("state"))) == "memfd:state"
        assert describe(opened(os.pidfd_open(os.getpid()))) == f"pidfd {os.getpid()}"
        assert describe(opened(os.eventfd(0))) == "eventfd"
        for end in os.pipe():
            assert describe(opened(end)) == "pipe"
    assert describe(987654) == "unknown (No such file or directory)"
