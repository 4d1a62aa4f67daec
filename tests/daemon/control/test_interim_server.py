"""The process that answers probes while the supervisor's program is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from stillup.core.access import Rules
from stillup.daemon.control import interim_handover
from stillup.daemon.control.interim_handover import Interim
from stillup.daemon.control.interim_server import MOST_HELD, MOST_WITHOUT_RIGHT
from stillup.host import descriptors
from stillup.wire.api_operation import ApiSocket
from stillup.wire.interim_messages import InterimOrders
from tests.host.slow_sockets import slow_to_close

PROBE = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


class Host:
    """Two of its sockets, and an interim server on them that answers."""

    def __init__(self, folder: Path, stack: ExitStack, workers: list[int]) -> None:
        self.path = str(folder / "control.sock")
        self.control, self.admin = socket.socket(socket.AF_UNIX), socket.socket()
        self.control.bind(self.path)
        self.admin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.admin.bind(("127.0.0.1", 0))
        for sock in (self.control, self.admin):
            stack.callback(sock.close)
            sock.listen()
            sock.setblocking(False)
        orders = InterimOrders(
            ["control.sock", "--admin-bind"], {"control.sock": Rules()}, os.geteuid(), workers, [], "/nowhere"
        )
        self.interim: Interim = interim_handover.start(orders, [self.control, self.admin], os.environ)
        stack.callback(self.interim.close)
        self.interim.begin({"/readyz": ANSWER})

    def ask(self, stack: ExitStack, said: bytes = PROBE, *, over_tcp: bool = False) -> socket.socket:
        client = stack.enter_context(socket.socket(socket.AF_INET if over_tcp else socket.AF_UNIX))
        client.settimeout(30)
        client.connect(self.admin.getsockname() if over_tcp else self.path)
        with suppress(BrokenPipeError):  # who is hung up on may see it already
            client.sendall(said)
        return client


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(4096), b""))


async def test_probes_are_answered_and_the_rest_is_kept(tmp_path: Path, stack: ExitStack) -> None:
    """On each socket; what is no probe comes to the new program with all that its client has sent."""
    host = Host(tmp_path, stack, [])
    other = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
    waits = host.ask(stack, other)
    assert await asyncio.to_thread(_all, host.ask(stack)) == ANSWER.encode()
    assert await asyncio.to_thread(_all, host.ask(stack, over_tcp=True)) == ANSWER.encode()
    came: list[tuple[str, bytes]] = []

    def serve(name: str, sock: socket.socket) -> None:
        with sock:
            came.append((name, sock.recv(4096)))
            sock.sendall(b"served")

    await host.interim.end(serve)
    assert came == [("control.sock", other)]
    assert _all(waits) == b"served"
    assert host.interim.pair.fileno() < 0, "it is reaped"
    with pytest.raises(ChildProcessError):
        await asyncio.to_thread(os.waitpid, host.interim.pid, os.WNOHANG)


@pytest.mark.parametrize("served", [False, True])
async def test_what_takes_long_to_close(tmp_path: Path, stack: ExitStack, *, served: bool) -> None:
    """Sent beside a probe or beside what is kept for the new program, neither of the two waits for it."""
    host = Host(tmp_path, stack, [])
    began = time.monotonic()
    with slow_to_close(inside=False) as slow:
        caller = host.ask(stack, b"")
        descriptors.send(caller, b"GET /v1/status HTTP/1.1\r\n\r\n" if served else PROBE, [slow.fileno()])
        slow.close()
        assert await asyncio.to_thread(_all, host.ask(stack)) == ANSWER.encode()
        came: list[str] = []

        def serve(name: str, sock: socket.socket) -> None:
            came.append(name)
            sock.close()

        await host.interim.end(serve)
        assert came == (["control.sock"] if served else [])
        assert time.monotonic() - began < 15  # half of what the close takes


async def test_an_address_that_is_bound_anew(tmp_path: Path, stack: ExitStack) -> None:
    """It closes a socket when it is told to, keeps what came by it, and answers at the others."""
    host = Host(tmp_path, stack, [])
    held = host.ask(stack, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", over_tcp=True)
    assert _all(host.ask(stack, over_tcp=True)) == ANSWER.encode()
    address = host.admin.getsockname()
    host.admin.close()
    host.interim.release(ApiSocket.ADMIN)
    with socket.create_server(address):
        pass
    assert _all(host.ask(stack)) == ANSWER.encode()
    served: list[tuple[str, socket.socket]] = []
    await host.interim.end(lambda name, sock: served.append((name, stack.enter_context(sock))))
    assert [(name, sock.getpeername()) for name, sock in served] == [(ApiSocket.ADMIN, held.getsockname())]


async def test_a_worker_is_not_answered(tmp_path: Path, stack: ExitStack) -> None:
    """Nor whatever it has started: the new program says so to them. Over TCP anybody may ask."""
    host = Host(tmp_path, stack, [os.getpid()])
    host.ask(stack)
    assert await asyncio.to_thread(_all, host.ask(stack, over_tcp=True)) == ANSWER.encode()
    came: list[str] = []

    def serve(name: str, sock: socket.socket) -> None:
        came.append(name)
        sock.close()

    await host.interim.end(serve)
    assert came == ["control.sock"]


def test_callers_without_a_right_take_no_places(tmp_path: Path, stack: ExitStack) -> None:
    """Some of them are kept for the new program, which says why; the others are hung up on, and probes answered on."""
    host = Host(tmp_path, stack, [os.getpid()])
    silent = [host.ask(stack) for _ in range(MOST_HELD + MOST_WITHOUT_RIGHT)]
    assert _all(host.ask(stack, over_tcp=True)) == ANSWER.encode()
    for sock in silent[MOST_WITHOUT_RIGHT:]:
        with suppress(ConnectionResetError):
            assert _all(sock) == b""


def test_one_that_hangs(tmp_path: Path, stack: ExitStack) -> None:
    """It keeps nobody waiting who ends it."""
    host = Host(tmp_path, stack, [])
    os.kill(host.interim.pid, signal.SIGSTOP)
    closing = threading.Thread(target=host.interim.close, daemon=True)
    closing.start()
    closing.join(30)
    hung = closing.is_alive()
    if hung:
        os.kill(host.interim.pid, signal.SIGKILL)
    assert not hung


def test_it_ends_with_the_supervisor(tmp_path: Path, stack: ExitStack) -> None:
    """Whose end it sees: a new one finds the addresses free."""
    host = Host(tmp_path, stack, [])
    closing = threading.Thread(target=host.interim.close)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
