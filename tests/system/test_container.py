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

from tests.system.harness import APP, DEADLINE, Service, eventually, forks_workers, lines

CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

APP_THAT_LEAVES_ORPHANS = """
import subprocess
""" + APP.replace(
    "    body =",
    """    if scope["path"] == "/orphans":
        for _ in range(10):
            subprocess.run(["/bin/sh", "-c", "(while [ ! -e go ]; do sleep 0.02; done; exit 7) &"], check=True)
    if scope["path"] == "/exit":
        os._exit(3)
    body =""",
)


pytestmark = pytest.mark.xdist_group("container")


@contextlib.contextmanager
def _contained(folder: Path) -> Iterator[Service]:
    if os.geteuid() != 0 or subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root and pid namespaces (unshare --pid)")
    service = Service(folder)
    service.argv = [*CONTAINER, *service.argv]
    service.write(APP_THAT_LEAVES_ORPHANS)
    with service:
        yield service
        if service.process.poll() is None:
            first(service).terminate()  # unshare itself hands no signal on
            assert service.process.wait(DEADLINE) == 0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for what leaves it running."""
    with _contained(tmp_path_factory.mktemp("service")) as service:
        yield service


def first(service: Service) -> psutil.Process:
    """PID 1, as it is seen from outside."""
    (found,) = psutil.Process(service.process.pid).children()
    assert service.status().pid == 1
    return found


def children(service: Service) -> list[str]:
    """What the children of PID 1 do; without its template, and those that are reaped while they are looked at."""
    seen: list[str] = []
    for child in first(service).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            seen += [] if forks_workers(child) else [child.status()]
    return seen


def test_orphans_are_reaped(service: Service) -> None:
    """No orphan that ends stays a zombie, whether the service or the supervisor's own program is new."""
    (old,) = service.generations()
    for generation, after in ((old, _reload), (old + 1, _replace_program), (old + 1, lambda _: None)):
        (service.folder / "go").unlink(missing_ok=True)
        assert service.get("/orphans").startswith(f"{generation} ")
        eventually(lambda: len(children(service)) > 1, "orphans are there")
        (service.folder / "go").touch()
        eventually(lambda: children(service) == [psutil.STATUS_SLEEPING], "they are gone")
        after(service)


def _reload(service: Service) -> None:
    assert service.client.reload(wait="drained").outcome == "succeeded"


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
def test_stop(tmp_path: Path, number: signal.Signals) -> None:
    """PID 1, whom the kernel spares every signal that it has no handler for, stops when it is told to, and exits 0."""
    with _contained(tmp_path) as service:
        worker = service.family()[-1]
        first(service).send_signal(number)
        assert service.process.wait(DEADLINE) == 0
        assert not worker.is_running()
