"""The supervisor as PID 1 of a container: a pid namespace of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.harness import APP, Service, eventually, lines

CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

APP_THAT_LEAVES_ORPHANS = """
import subprocess
""" + APP.replace(
    "    body =",
    """    if scope["path"] == "/orphans":
        for _ in range(10):
            subprocess.run(["/bin/sh", "-c", "(sleep 0.1; exit 7) &"], check=True)
    if scope["path"] == "/exit":
        os._exit(3)
    body =""",
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    if os.geteuid() != 0 or subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root and pid namespaces (unshare --pid)")
    service = Service(tmp_path)
    service.argv = [*CONTAINER, *service.argv]
    service.write(APP_THAT_LEAVES_ORPHANS)
    with service:
        yield service
        if service.process.poll() is None:
            first(service).terminate()  # unshare itself hands no signal on
            assert service.process.wait(20) == 0


def first(service: Service) -> psutil.Process:
    """PID 1, as it is seen from outside."""
    (found,) = psutil.Process(service.process.pid).children()
    assert service.status().pid == 1
    return found


def children(service: Service) -> list[str]:
    """What the children of PID 1 do; without those that are reaped while they are looked at."""
    seen: list[str] = []
    for child in first(service).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.append(child.status())
    return seen


def test_orphans_are_reaped(service: Service) -> None:
    """No orphan that ends stays a zombie, whether the service or the supervisor's own program is new."""
    for generation, after in ((1, _reload), (2, _replace_program), (2, lambda _: None)):
        assert service.get("/orphans").startswith(f"{generation} ")
        eventually(lambda: len(children(service)) > 1, "orphans are there")
        eventually(lambda: children(service) == [psutil.STATUS_SLEEPING], "they are gone")
        after(service)


def _reload(service: Service) -> None:
    assert service.cli("reload", "--wait", "drained").returncode == 0


def _replace_program(service: Service) -> None:
    argv = [service.argv[len(CONTAINER)], "supervisor", "reexec", "--runtime-dir", str(service.runtime)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def test_how_workers_ended_is_still_known(service: Service) -> None:
    """Among orphans that end a worker's own end is told right, and it is replaced."""
    for turn in (1, 2):
        service.get("/orphans")
        with pytest.raises(OSError, match=r"."):
            service.get("/exit")
        eventually(lambda n=turn: len(list(lines(service.log(), "exited 3"))) == n, "its end is told")  # type: ignore[misc]
        eventually(service.workers, "another serves")
    assert "how is not known" not in service.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_stop(service: Service, number: signal.Signals) -> None:
    """PID 1, whom the kernel spares every signal that it has no handler for, stops when it is told to, and exits 0."""
    worker = service.family()[-1]
    first(service).send_signal(number)
    assert service.process.wait(20) == 0
    assert not worker.is_running()
