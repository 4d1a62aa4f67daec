"""Whoever comes to handoff.sock and is not the worker that is expected is refused, and costs nobody else anything."""

from __future__ import annotations

import json
import random
import re
import socket
from pathlib import Path

import pytest

from tests.system.harness import APP, Service, descriptors, eventually

SLOW_BOOT = "import time\ntime.sleep(1.5)\n" + APP


def _knock(service: Service) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(20)
    sock.connect(str(service.runtime / "handoff.sock"))
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


def _hello(nonce: str = "x" * 32, protocol: int = 1) -> bytes:
    return json.dumps({"type": "Hello", "protocol": protocol, "nonce": nonce}).encode()


def _nonce(pid: int) -> str:
    """What only a thief would do: read a booting worker's nonce from its environment."""
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    match = re.search(rb"STILLUP_NONCE=(\w+)", environment)
    assert match is not None
    return match.group(1).decode()


@pytest.fixture
def service(tmp_path: Path) -> Service:
    service = Service(tmp_path)
    service.write()
    return service


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"\x00\xffgarbage", id="garbage"),
        pytest.param(b"{}", id="no-type"),
        pytest.param(_hello(), id="unknown-nonce"),
        pytest.param(_hello(protocol=99), id="other-protocol"),
        pytest.param(b'{"type":"Serving"}', id="out-of-turn"),
        pytest.param(b"x" * 150_000, id="too-long"),
    ],
)
def test_nonsense_is_refused(service: Service, packet: bytes) -> None:
    """Garbage, a wrong nonce, a wrong turn or a packet that is too long is refused with a reason; the rest goes on."""
    with service:
        sock = _knock(service)
        sock.send(packet)
        assert b'"Refusal"' in _ends(sock)
        assert service.reload().returncode == 0


def test_a_slot_of_another_is_refused(service: Service) -> None:
    """A process that knows a worker's nonce is refused: the kernel says that it is another. The worker boots on."""
    with service:
        service.write(SLOW_BOOT)
        rollout = service.client.reload()
        pid = eventually(lambda: service.status().generations[-1].workers[0].pid, "the worker's process")
        nonce = _nonce(pid)
        for _ in range(3):
            sock = _knock(service)
            sock.send(_hello(nonce))
            said = _ends(sock)
            assert b'"Refusal"' in said
            assert b'"Welcome"' not in said
        assert service.settled(rollout.id).outcome == "succeeded"


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


@pytest.mark.parametrize("packet", [pytest.param(_hello(), id="hello-twice"), pytest.param(b"garbage", id="garbage")])
def test_a_worker_that_breaks_the_protocol_is_rejected(service: Service, packet: bytes) -> None:
    """A worker that says hello twice, or garbage, fails its own rollout; the old generation serves on."""
    service.tracebacks_expected = True
    with service:
        before = service.get()
        service.write(RUDE_APP.replace("WORDS", repr(packet)))
        reload = service.reload()
        assert reload.returncode == 1
        assert "broke the hand-off protocol" in reload.stdout
        assert service.get() == before


def test_the_silent_are_many_and_harmless(service: Service) -> None:
    """A hundred connections that never say hello don't keep a reload from succeeding, and leave no descriptor."""
    with service:
        before = len(descriptors(service.process.pid))
        silent = [_knock(service) for _ in range(100)]
        assert service.reload().returncode == 0
        for sock in silent:
            sock.close()
        eventually(lambda: len(descriptors(service.process.pid)) <= before, "their descriptors are closed")


def test_any_packet_with_any_descriptors(service: Service) -> None:
    """500 random packets with random descriptors: no crash, no leak, and the next reload works."""
    chance = random.Random(3)
    with service:
        before = len(descriptors(service.process.pid))
        for _ in range(500):
            sock = _knock(service)
            noise = chance.randbytes(chance.randrange(1, 400))
            packet = chance.choice([_hello(), noise, b'{"type":"Ready","probe":1}'])
            socket.send_fds(sock, [packet], [sock.fileno()] * chance.randrange(0, 100))
            if chance.random() < 0.5:
                _ends(sock)
            sock.close()
        eventually(lambda: len(descriptors(service.process.pid)) <= before, "no descriptor more than before")
        assert service.reload().returncode == 0
