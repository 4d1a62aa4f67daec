"""Every message on the two sockets, live: what whoever traces sees, and that nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillup.client import Client, ProblemError
from stillup.wire.trace_messages import TracedMessage, TraceGap
from tests.children import spawned
from tests.system.harness import DEADLINE, STILLUP, Service, connect, eventually, pids

pytestmark = pytest.mark.xdist_group("trace")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all of these; the last stops it."""
    service = Service(tmp_path_factory.mktemp("trace"), "main:app", "--header", "x-token:s3cret")
    service.write()
    with service:
        yield service


@pytest.fixture
def service(traced: Service) -> Service:
    """The service, when one generation alone is there."""
    eventually(lambda: len(traced.generations()) == 1, "the old generation has left")
    return traced


def _nonces(service: Service) -> list[str]:
    words = [
        word for worker in service.workers() for word in Path(f"/proc/{worker.pid}/environ").read_text().split("\0")
    ]
    return [word.partition("=")[2] for word in words if word.startswith("STILLUP_NONCE=")]


def test_a_reload_as_it_is_told(service: Service) -> None:
    """Hello, Welcome, the listeners with their descriptors, Ready, Accept, Serving, Drain; and who asked for it.

    No nonce is in it, nor an option of the app.
    """
    nonces = _nonces(service)
    address = service.address()
    ((name, old),) = pids(service).items()
    seen: list[TracedMessage] = []
    with service.client.trace() as lines:
        service.client.reload(wait="drained")
        for line in lines:
            assert isinstance(line, TracedMessage)
            seen.append(line)
            if line.fields.get("status") == 200 and line.fields["path"] == "/v1/reload":
                break
    ((successor, new),) = pids(service).items()
    told = [(line.direction, line.type) for line in seen if line.pid == new]
    assert told[:10] == [
        ("in", "Hello"),
        ("out", "Welcome"),
        ("in", "Taken"),
        ("out", "Offer"),
        ("in", "Taken"),
        ("out", "Batch"),
        ("in", "Taken"),
        ("in", "Ready"),
        ("out", "Accept"),
        ("in", "Serving"),
    ]
    # A worker that was forked may speak before the thread that had it forked has said who it is.
    assert {line.worker for line in seen if line.pid == new} - {""} == {successor}
    (drain,) = (line for line in seen if line.type == "Drain")
    assert (drain.pid, drain.worker, drain.socket) == (old, name, "handoff")
    batch = next(line for line in seen if line.type == "Batch")
    assert batch.descriptors == [f"tcp {address} listening", "unix seqpacket", "unix seqpacket"]
    welcome = next(line for line in seen if line.type == "Welcome")
    assert welcome.descriptors[:2] == [str(service.log_file)] * 2
    (figures,) = welcome.descriptors[2:]
    assert "figures" in figures
    asked = next(line for line in seen if line.socket == "control" and line.direction == "in")
    assert (asked.pid, asked.uid, asked.fields) == (
        os.getpid(),
        os.geteuid(),
        {"method": "POST", "path": "/v1/reload"},
    )
    text = repr(seen)
    nonces += _nonces(service)
    assert len(set(nonces)) == 2
    assert not any(nonce in text for nonce in nonces)
    assert "s3cret" not in text


def _tracer(service: Service) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(f"{service.runtime}/control.sock")
    sock.sendall(b"GET /v1/trace HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sock.recv(12) == b"HTTP/1.1 200"
    return sock


def test_a_tracer_that_reads_nothing(service: Service) -> None:
    """It slows no reload, and when it reads at last it is told how much it missed."""
    with service.client.trace() as lines:
        before = service.client.reload(wait="cut-over").total
        connection = connect(f"unix:{service.runtime}/control.sock")
        for _ in range(1200):
            connection.request("GET", "/livez")
            connection.getresponse().read()
        connection.close()
        assert service.client.reload(wait="cut-over").total < before + DEADLINE / 2
        missed = next(line for line in lines if isinstance(line, TraceGap)).missed
    assert missed > 0


def test_the_command(service: Service) -> None:
    """``stillup trace`` shows a line a message, with its descriptors under it or as JSON; Ctrl-C ends it."""
    client = Client(str(service.runtime))
    with _command(service) as text, _command(service, "--json") as json_lines:
        for tracer, tracing in ((text, "GET /v1/status"), (json_lines, '"/v1/status"')):
            _until_begun(client, tracer, tracing)
        client.reload(wait="cut-over")
        shown = [_ended(tracer) for tracer in (text, json_lines)]
    listening = f"tcp {service.address()} listening"
    (successor,) = pids(service)
    assert f"  + {listening}\n" in shown[0]
    assert f" handoff -> {successor} " in shown[0]
    assert any(listening in json.loads(line).get("descriptors", []) for line in shown[1].splitlines())


@contextmanager
def _command(service: Service, *words: str) -> Iterator[subprocess.Popen[str]]:
    argv = [STILLUP, "trace", *words, "--runtime-dir", str(service.runtime)]
    with spawned(argv, stdout=subprocess.PIPE, text=True) as tracer:
        yield tracer


def _until_begun(client: Client, tracer: subprocess.Popen[str], tracing: str) -> None:
    """Ask until it is seen: it traces from the moment on at which it has the answer's head."""
    assert tracer.stdout is not None
    stdout = tracer.stdout

    def seen() -> bool:
        client.status()
        return tracing in stdout.readline()

    os.set_blocking(stdout.fileno(), False)
    eventually(seen, "the trace has begun")
    os.set_blocking(stdout.fileno(), True)


def _ended(tracer: subprocess.Popen[str]) -> str:
    """What it printed up to the first worker that serves; then Ctrl-C ends it."""
    assert tracer.stdout is not None
    text = ""
    while "Serving" not in text:
        text += tracer.stdout.readline()
    tracer.send_signal(signal.SIGINT)
    tracer.stdout.read()
    assert tracer.wait(DEADLINE) == 0
    return text


def test_only_a_few_may_trace_and_each_leaves_nothing(service: Service) -> None:
    """A fifth is refused until one has hung up; a service that stops ends the streams and does not wait for them."""
    tracers = [_tracer(service) for _ in range(4)]
    with pytest.raises(ProblemError, match="4 traces are under way") as caught:
        service.client.trace()
    assert caught.value.code == "unavailable"
    for tracer in tracers:
        tracer.close()

    def again() -> Any:
        try:
            return service.client.trace()
        except ProblemError:
            return None

    streams = [eventually(again, "there is room for another") for _ in range(4)]
    service.client.stop()
    for stream in streams:
        with stream:
            *_, last = stream
            assert isinstance(last, TracedMessage)
