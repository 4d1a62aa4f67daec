"""A stdout and a stderr that are closed, that nobody reads, or whose reader has gone: what serves goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import APP, STILLUP, Service, connect, eventually

PATIENT = ("main:app", "--timeout-keep-alive", "60")
"""A slow machine may take longer for a reload than the 5 s that a connection is kept else."""
PRINTS = APP.replace("    body =", "    import sys; sys.stderr.write('asked' + '!' * 80)\n    body =")


def serves_and_reloads(service: Service) -> None:
    """A connection is kept through a reload whose old worker leaves in good order."""
    client = connect(service.address())
    for generation in ("1", "2"):
        client.request("GET", "/")
        assert client.getresponse().read().decode().split()[0] == generation
        if generation == "1":
            old = service.workers()[0].pid
            assert service.client.reload(wait="drained").state == "done"
            assert old not in {process.pid for process in service.family()}
    client.close()


def test_closed_from_the_start(tmp_path: Path) -> None:
    """With stdin, stdout and stderr closed by whoever starts it (``>&-``) a service starts, reloads and stops."""
    service = Service(tmp_path, *PATIENT)
    service.argv = ["/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *service.argv]
    service.write(PRINTS)
    with service:
        serves_and_reloads(service)
        service.signal(signal.SIGTERM)
        assert service.process.wait(15) == 0
    assert service.log() == ""


def test_a_client_whose_streams_are_closed_or_that_leaves(tmp_path: Path) -> None:
    """A command whose stdout and stderr are closed does what it is to do.

    Callers who hang up while they are answered, in whatever way, end nothing and leave nothing open.
    """
    service = Service(tmp_path)
    service.write()
    with service:
        hang_up(service)
        assert service.status().state == "serving"
        for command in ("status", "reload", "stop"):
            argv = [STILLUP, command, "--runtime-dir", str(service.runtime)]
            done = subprocess.run(["/bin/sh", "-c", 'exec "$0" "$@" >&- 2>&-', *argv], timeout=30, check=False)
            assert done.returncode == 0, command
            if command == "reload":
                eventually(lambda: service.get().startswith("2 "), "generation 2 answers")
        assert service.process.wait(15) == 0


def hang_up(service: Service) -> None:
    """Ask for something, and leave in the middle of the answer."""
    for request in (
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" * 200,
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        for how in (socket.SHUT_RD, socket.SHUT_RDWR, None):
            caller = socket.socket(socket.AF_UNIX)
            caller.connect(f"{service.runtime}/control.sock")
            caller.sendall(request)
            if how is not None:
                caller.shutdown(how)
            caller.close()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, both of whose ends may be closed early."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.mark.parametrize("streams", [["stdout"], ["stdout", "stderr"]], ids="+".join)
def test_a_reader_that_goes_away(tmp_path: Path, streams: list[str]) -> None:
    """Once nobody reads it any more, requests are answered, reloads done, and a worker's end is its own (not 120)."""
    environment = {"PYTHONUNBUFFERED": ""}  # it would leave nothing to be let out at the end
    service = Service(tmp_path, *PATIENT, environment=environment)
    service.tracebacks_expected = True  # logging tells stderr of what it could not write to stdout
    service.write()
    with pipe() as (read, write):
        service.popen = dict.fromkeys(streams, write)
        with service:
            os.close(write)
            os.close(read)
            serves_and_reloads(service)
            service.signal(signal.SIGTERM)
            assert service.process.wait(15) == 0
    assert "exited" not in service.log()
    if streams == ["stdout"]:
        service.logged("gen 1 has left: 1 connection moved on, 0 closed")


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """With a stdout and a stderr that are full and stay so, the supervisor reloads, answers and stops."""
    service = Service(tmp_path, *PATIENT, "--no-access-log", "--log-level", "warning")
    service.write()
    with pipe() as (_, write):
        os.set_blocking(write, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, b"x" * 4096)
        os.set_blocking(write, True)
        service.popen = {"stdout": write, "stderr": write}
        with service:
            serves_and_reloads(service)
            for _ in range(3):
                service.signal(signal.SIGUSR1)
            assert service.status().state == "serving"
            service.signal(signal.SIGTERM)
            assert service.process.wait(15) == 0
