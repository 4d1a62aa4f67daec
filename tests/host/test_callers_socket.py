"""Connections of whoever may connect, beside whose bytes comes what takes long to close."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillup.host import descriptors
from stillup.host.callers_socket import SO_PASSRIGHTS, CallersSocket
from stillup.host.sockets import open_listener
from stillup.wire.address import parse_bind
from tests.host.slow_sockets import slow_to_close

pytestmark = pytest.mark.usefixtures("no_leak")


@contextlib.contextmanager
def called() -> Iterator[tuple[CallersSocket, socket.socket]]:
    """A connection, and the caller's own end, from which something slow has come beside three bytes."""
    ours, theirs = socket.socketpair()
    with CallersSocket(fileno=ours.detach()) as ours, theirs, slow_to_close(inside=False) as slow:
        descriptors.send(theirs, b"abc", [slow.fileno()])
        slow.close()
        yield ours, theirs


@pytest.mark.parametrize("read", [lambda ours: ours.recv(2), lambda ours: ours.recv(3, socket.MSG_PEEK)])
def test_it_is_read(read: Callable[[socket.socket], bytes]) -> None:
    """The bytes come, and nobody waits for what came with them."""
    with called() as (ours, theirs):
        began = time.monotonic()
        read(ours)
        theirs.shutdown(socket.SHUT_WR)
        assert ours.recv(100)[-1:] == b"c"
        assert ours.recv(100) == b""
        assert time.monotonic() - began < 15  # half of what the close takes


def test_it_is_closed_unread() -> None:
    """Nobody waits, its caller sees the end, and once is enough."""
    with called() as (ours, theirs):
        began = time.monotonic()
        ours.close()
        ours.close()
        assert theirs.recv(1) == b""
        assert (ours.fileno(), time.monotonic() - began < 15) == (-1, True)


def test_one_that_is_no_unix_connection() -> None:
    """It is read and closed as any."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        with CallersSocket(fileno=server.accept()[0].detach()) as ours:
            client.sendall(b"abc")
            assert ours.recv(3) == b"abc"
            ours.sendall(b"answer")
        assert client.recv(100) == b"answer"


@pytest.mark.parametrize("bind", ["unix:{}/s", "unix:@{}"])
def test_who_sends_descriptors_is_refused(tmp_path: Path, bind: str) -> None:
    """By the kernel, before and after it was accepted: apps have connections of another class."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS)
        except OSError:
            pytest.skip("this kernel has it not (Linux 6.16)")
    listener = open_listener(parse_bind(bind.format(tmp_path if "/" in bind else secrets.token_hex(8))), 4)
    with listener.socket, socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.socket.getsockname())
        for _ in range(2):
            with pytest.raises(PermissionError):
                descriptors.send(client, b"x", [client.fileno()])
            with listener.socket.dup() as same, contextlib.suppress(BlockingIOError):
                same.setblocking(False)
                connection, _ = same.accept()
        client.sendall(b"abc")
        assert connection.recv(100) == b"abc"
        connection.close()
    if listener.file is not None:
        os.unlink(listener.file.path)
