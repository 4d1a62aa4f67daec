"""The supervisor replaces its own program: the process stays, and so does everything that it holds."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.system.clients import Peer, request
from tests.system.harness import ROOT, Service, alone, descriptors, eventually, lines, mutated

GATED = ("tests.system.gated:app", "--app-dir", str(ROOT), "--no-access-log")

Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the gated app with options of its own."""
    with ExitStack() as stack:

        def started(*options: str, **rest: object) -> Service:
            return stack.enter_context(Service(tmp_path, *GATED, *options, workers=2, **rest))  # type: ignore[arg-type]

        yield started


def _pids(service: Service) -> set[int | None]:
    return {worker.pid for worker in service.workers()}


def _replaced(service: Service, times: int) -> None:
    eventually(lambda: service.status().reexecs == times, f"replaced {times} times")


def test_nothing_changes_but_the_program(start: Start) -> None:
    """Pid, workers, connections, address, descriptors, generation: all as before; and the next reload works."""
    service = start()
    address, pids = service.address(), _pids(service)
    with Peer(address) as kept:
        assert kept.get().generation == 1
        before = len(descriptors(alone(service)))
        for times in range(1, 4):
            done = service.cli("supervisor", "reexec")
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"ok  pid {service.process.pid} runs stillup ")
            assert service.status().reexecs == times
            assert (service.address(), _pids(service), service.generations()) == (address, pids, [1])
            assert kept.get().pid in pids
        eventually(lambda: len(descriptors(service.process.pid)) == before, "as many descriptors as before")
        assert service.reload().returncode == 0
        assert kept.get().generation == 2
    assert "without a supervisor" not in service.log()


def test_a_worker_stays_a_child(start: Start) -> None:
    """How a worker ends is known as before, and its slot is filled."""
    service = start()
    service.signal(signal.SIGUSR2)
    _replaced(service, 1)
    victim = service.workers()[0].pid
    assert victim is not None
    psutil.Process(victim).kill()
    eventually(lambda: victim not in _pids(service) and len(_pids(service)) == 2, "its slot is filled")
    assert next(lines(service.log(), f"(pid {victim})", "killed by SIGKILL"))


def test_a_drain_goes_on(start: Start) -> None:
    """A generation that drains is known to the new program, and leaves when it has finished."""
    service = start()
    with Peer(service.address()) as waits:
        waits.send(request("/wait?gate=g"))
        eventually((service.folder / "g.reached").exists, "the request is in progress")
        assert service.reload().returncode == 0
        service.client.reexec()
        _replaced(service, 1)
        assert service.generations() == [1, 2]
        (service.folder / "g").touch()
        assert waits.answer().generation == 1
        eventually(lambda: service.generations() == [2], "the old generation has left")
        rollout = service.status().rollout
        assert rollout is not None
        assert (rollout.state, rollout.generation) == ("done", 2)
        assert waits.get().generation == 2


def test_a_program_that_fails_its_trial_changes_nothing(tmp_path: Path) -> None:
    """Broken code, or options that mean nothing any more: the caller is told why, and the old program goes on."""
    environment = mutated(tmp_path)
    broken = tmp_path / "mutated" / "supervisor" / "daemon" / "main.py"
    with Service(tmp_path, *GATED, workers=2, environment=environment) as service:
        pids = _pids(service)
        sound = broken.read_text()
        broken.write_text(sound + "\nthis is no Python\n")
        done = service.cli("supervisor", "reexec")
        assert done.returncode == 1
        assert "failed its trial" in done.stderr
        assert "SyntaxError" in done.stderr
        service.signal(signal.SIGUSR2)
        eventually(
            lambda: next(lines(service.log(), "SIGUSR2", "failed its trial"), None), "the signal's refusal is logged"
        )
        assert (service.status().reexecs, _pids(service)) == (0, pids)
        broken.write_text(sound)
        assert service.cli("supervisor", "reexec").returncode == 0
        assert _pids(service) == pids


def test_an_upgrade_is_seen(tmp_path: Path) -> None:
    """The code that is on the disk now runs then."""
    environment = mutated(tmp_path)
    package = tmp_path / "mutated" / "supervisor" / "__init__.py"
    with Service(tmp_path, *GATED, workers=2, environment=environment) as service:
        before = service.status().version
        package.write_text(package.read_text().replace(before, "99.0.0"))
        done = service.cli("supervisor", "reexec")
        assert f"runs stillup 99.0.0 (before: {before})" in done.stdout
        assert service.status().version == "99.0.0"


def test_it_waits_for_no_rollout(start: Start) -> None:
    """While a generation boots the program is not replaced: its workers would lose the one who can let them accept."""
    service = start()
    control = f"{service.runtime}/control.sock"
    for route in ("scale?workers=3", "supervisor/reexec"):
        curl = ["curl", "-s", "--unix-socket", control, "-X", "POST", f"http://localhost/v1/{route}"]
        answer = json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)
    # The trial takes as long as a boot: by then the new worker may serve, and all is well.
    assert answer.get("state") == "replacing" or answer["type"].endswith((":out-of-order", ":rollout-in-progress"))
    eventually(lambda: len(service.workers()) == 3, "three workers serve")


def test_signals_that_come_meanwhile_are_kept(start: Start) -> None:
    """A SIGHUP at any instant of it is a reload, none is fatal."""
    service = start()
    for times in range(1, 4):
        service.client.reexec()
        service.signal(signal.SIGHUP)
        eventually(lambda: service.generations()[-1] == times + 1, "the reload that the signal asks for")  # noqa: B023
        eventually(lambda: service.generations() == [times + 1], "the old generation has left")  # noqa: B023
        _replaced(service, times)


def test_a_stop_that_comes_meanwhile_is_kept(start: Start) -> None:
    """A SIGTERM at any instant of it stops the service."""
    service = start()
    service.client.reexec()
    service.signal(signal.SIGTERM)
    assert service.process.wait(10) == 0
