"""Whoever comes to handoff.sock and is not the worker that is expected is refused, and costs nobody else anything."""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from stillup.client import ProblemError
from stillup.host.channel import connect_within
from stillup.wire.handoff_messages import PROTOCOL
from tests.system.harness import APP, Service, alone, descriptors, eventually


def _knock(service: Service) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connect_within(sock, str(service.runtime / "handoff.sock"), 20)  # few may wait there; who has a time limit may not
    sock.settimeout(20)
    return sock


def _ends(sock: socket.socket) -> bytes:
    """What is said to us until the other side hangs up."""
    said = b""
    try:
        while packet := sock.recv(65536):
            said += packet
    except ConnectionResetError:
        pass
    sock.close()
    return said


def _hello(nonce: str = "x" * 32, protocol: int = PROTOCOL) -> bytes:
    return json.dumps({"type": "Hello", "protocol": protocol, "nonce": nonce}).encode()


def _nonce(pid: int) -> str:
    """What only a thief would do: read a booting worker's nonce from its environment."""
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    match = re.search(rb"STILLUP_NONCE=(\w+)", environment)
    assert match is not None
    return match.group(1).decode()


pytestmark = pytest.mark.xdist_group("strangers")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that all of these come to, one after the other; it serves on."""
    service = Service(tmp_path_factory.mktemp("strangers"))
    service.write()
    with service:
        yield service


def test_nonsense_is_refused(service: Service) -> None:
    """Garbage, a wrong nonce, a wrong turn or a packet that is too long is refused with a reason; the rest goes on."""
    for packet in (
        b"\x00\xffgarbage",
        b"{}",
        _hello(),
        _hello(protocol=99),
        b'{"type":"Serving"}',
        b"x" * 150_000,
    ):
        sock = _knock(service)
        sock.send(packet)
        assert b'"Refusal"' in _ends(sock), packet[:100]
    service.client.reload(wait="cut-over")


def test_a_slot_of_another_is_refused(service: Service) -> None:
    """A process that knows a worker's nonce is refused: the kernel says that it is another. The worker boots on."""
    known = {process.pid for process in service.family()}
    rollout = service.client.reload()
    worker = eventually(lambda: _new_worker(service, known), "the worker's process")
    worker.suspend()  # most often before it has said hello
    try:
        nonce = _nonce(worker.pid)
        for _ in range(3):
            sock = _knock(service)
            sock.send(_hello(nonce))
            said = _ends(sock)
            assert b'"Refusal"' in said
            assert b'"Welcome"' not in said
    finally:
        worker.resume()
    assert service.settled(rollout.id).outcome == "succeeded"


def _new_worker(service: Service, known: set[int]) -> psutil.Process | None:
    """A worker's process that is none of these."""
    for process in service.family():
        with suppress(psutil.Error):
            if process.pid not in known and "stillup.worker" in process.cmdline():
                return process
    return None


def _descriptors_at_rest(service: Service) -> int:
    """How many the supervisor has when no other generation and no caller is there."""
    eventually(lambda: len(service.generations()) == 1, "the old generation has left")
    return len(descriptors(alone(service)))


def test_the_silent_are_many_and_harmless(service: Service) -> None:
    """A hundred connections that never say hello don't keep a reload from succeeding, and leave no descriptor."""
    before = _descriptors_at_rest(service)
    silent = [_knock(service) for _ in range(100)]
    service.client.reload(wait="drained")
    for sock in silent:
        sock.close()
    eventually(lambda: len(descriptors(alone(service))) <= before, "their descriptors are closed")


def test_any_packet_with_any_descriptors(service: Service) -> None:
    """500 random packets with random descriptors: no crash, no leak, and the next reload works."""
    chance = random.Random(3)
    before = _descriptors_at_rest(service)
    for _ in range(500):
        sock = _knock(service)
        noise = chance.randbytes(chance.randrange(1, 400))
        packet = chance.choice([_hello(), noise, b'{"type":"Ready","probe":1}'])
        with suppress(BrokenPipeError):  # strangers who are too many are hung up on
            socket.send_fds(sock, [packet], [sock.fileno()] * chance.randrange(0, 100))
        if chance.random() < 0.5:
            _ends(sock)
        sock.close()
    eventually(lambda: len(descriptors(alone(service))) <= before, "no descriptor more than before")
    service.client.reload(wait="cut-over")


RUDE_APP = (
    """
import os, socket
def channel():
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET:
            return sock
        sock.close()
channel().send(WORDS)
"""
    + APP
)


def test_a_worker_that_breaks_the_protocol_is_rejected(service: Service) -> None:
    """A worker that says hello twice, or garbage, fails its own rollout; the old generation serves on."""
    assert "Traceback" not in service.log()
    service.tracebacks_expected = True
    eventually(lambda: len(service.generations()) == 1, "what another test has replaced is gone")
    before = service.get()
    for packet in (_hello(), b"garbage"):
        service.write(RUDE_APP.replace("WORDS", repr(packet)))
        with pytest.raises(ProblemError, match="broke the hand-off protocol"):
            service.client.reload(wait="cut-over")
        assert service.get() == before
