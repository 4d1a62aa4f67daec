"""The supervisor replaces its own program: the process stays, and so does everything that it holds."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.clients import Peer, request
from tests.system.gated_service import GATED
from tests.system.harness import DEADLINE, FULL, Service, alone, descriptors, eventually, lines
from tests.system.mutations import STARTS_6_S_LATER, mutated
from tests.system.own_pauses import OwnPauses

pytestmark = pytest.mark.xdist_group("reexec")

NOT_WAITED = 3.0
"""Seconds within which a probe was answered that did not wait for a program which starts 6 s later."""
ANSWERED = 0.05
"""Seconds that a probe may take longer than while nothing is replaced: a balancer may ask every 200 ms."""
PAUSE = 0.02
"""Seconds between two probes."""


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One whose program is replaced again and again; the last test stops it."""
    # Kept alive for longer than a slow machine takes for one.
    with Service(tmp_path_factory.mktemp("gated"), *GATED, "--timeout-keep-alive", "60") as service:
        yield service


@pytest.fixture
def service(gated: Service) -> Service:
    """The service at rest, with one worker."""
    gated.client.scale(1, wait=True)
    eventually(lambda: len(gated.generations()) == 1 and len(gated.family()) == 1, "one worker")
    return gated


def _pids(service: Service) -> set[int | None]:
    return {worker.pid for worker in service.workers()}


def test_nothing_changes_but_the_program(service: Service) -> None:
    """Pid, workers, connections, address, descriptors, generation: all as before; and the next reload works."""
    address, pids = service.address(), _pids(service)
    with Peer(address) as kept:
        assert kept.get().generation == 1
        # Without those of the template, of which the next program makes one when it is needed.
        before = len(descriptors(alone(service))) - 2 * len(service.templates())
        for times in range(1, 3):
            done = service.cli("supervisor", "reexec")
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"ok  {service.status().name}: pid {service.process.pid} runs stillup ")
            assert service.status().reexecs == times
            assert (service.address(), _pids(service), service.generations()) == (address, pids, [1])
            assert kept.get().pid in pids
        eventually(lambda: len(descriptors(service.process.pid)) == before, "as many descriptors as before")
        service.client.reload(wait="cut-over")
        eventually(lambda: kept.get().generation == 2, "the connection moves, a moment after the cut-over")
    assert "without a supervisor" not in service.log()


def test_a_drain_goes_on_and_a_worker_stays_a_child(service: Service) -> None:
    """A generation that drains is known to the new program, and leaves when it has finished.

    How a worker ends is known as before, and its slot is filled.
    """
    times = service.status().reexecs + 1
    (old,) = service.generations()
    with Peer(service.address()) as waits:
        waits.send(request("/wait?gate=g"))
        eventually((service.folder / "g.reached").exists, "the request is in progress")
        service.client.reload(wait="cut-over")
        service.signal(signal.SIGUSR2)
        service.reexecuted(times)
        assert service.generations() == [old, old + 1]
        (service.folder / "g").touch()
        assert waits.answer().generation == old
        eventually(lambda: service.generations() == [old + 1], "the old generation has left")
        rollout = service.status().rollout
        assert rollout is not None
        assert (rollout.state, rollout.generation) == ("done", old + 1)
        assert waits.get().generation == old + 1
    victim = service.workers()[0].pid
    assert victim is not None
    psutil.Process(victim).kill()
    eventually(lambda: victim not in _pids(service) and len(_pids(service)) == 1, "its slot is filled")
    service.logged(f"(pid {victim})", "killed by SIGKILL")


class _Prober(threading.Thread):
    """Asks /readyz again and again, as a balancer does, and keeps how long each answer took while this machine ran."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._path = f"{service.runtime}/control.sock"
        self._enough = threading.Event()
        self._pauses = OwnPauses()
        self.took: list[tuple[float, float]] = []
        """When each was asked, and how long its answer took."""
        self.failed: list[bytes] = []

    def run(self) -> None:
        with self._pauses:
            self._ask()

    def _ask(self) -> None:
        while not self._enough.wait(PAUSE):
            asked = time.monotonic()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(self._path)
                client.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            self.took.append((asked, time.monotonic() - asked - self._pauses.since(asked)))
            if b" 200 OK" not in answer:
                self.failed.append(answer)

    def end(self) -> None:
        self._enough.set()
        self.join()


def test_probes_are_answered_all_the_time(tmp_path: Path) -> None:
    """None waits for the new program, which takes its time to start here; each is told that it serves."""
    with Service(tmp_path, *GATED, environment=mutated(tmp_path, STARTS_6_S_LATER)) as service:
        prober = _Prober(service)
        prober.start()
        try:
            assert service.cli("supervisor", "reexec").returncode == 0
        finally:
            prober.end()
        assert service.status().reexecs == 1
    assert prober.failed == []
    assert max(took for _, took in prober.took) < NOT_WAITED


@pytest.mark.skipif(not FULL, reason="a matter of milliseconds, which a machine that others use has not: prove-repeats")
def test_probes_are_answered_as_soon_as_before(service: Service) -> None:
    """None waits for the new program's imports: at most 50 ms longer than before."""
    over = []
    for _ in range(10):  # on a machine that others use it may be their doing
        prober = _Prober(service)
        prober.start()
        try:
            eventually(lambda: len(prober.took) > 20, "some answers")  # noqa: B023 - in this turn
            begun = time.monotonic()
            assert service.cli("supervisor", "reexec").returncode == 0
        finally:
            prober.end()
        assert prober.failed == []
        before = max(took for asked, took in prober.took if asked < begun)
        over.append(max(took for asked, took in prober.took if asked >= begun) - before)
        if over[-1] < ANSWERED:
            break
    assert min(over) < ANSWERED, over


def test_it_waits_for_no_rollout(service: Service) -> None:
    """While a generation boots the program is not replaced: its workers would lose the one who can let them accept."""
    control = f"{service.runtime}/control.sock"
    for route in ("scale?workers=2", "supervisor/reexec"):
        curl = ["curl", "-s", "--unix-socket", control, "-X", "POST", f"http://localhost/v1/{route}"]
        answer = json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)
    # The trial takes as long as a boot: by then the new worker may serve, and all is well.
    assert answer.get("state") == "replacing" or answer["type"].endswith((":out-of-order", ":rollout-in-progress"))
    eventually(lambda: len(service.workers()) == 2, "two workers serve")


def test_signals_that_come_meanwhile_are_kept(service: Service) -> None:
    """A SIGHUP at any instant of it is a reload, none is fatal."""
    (generation,) = service.generations()
    before = service.status().reexecs
    for times in range(1, 9 if FULL else 3):
        service.client.reexec()
        service.signal(signal.SIGHUP)
        service.reexecuted(before + times)
        eventually(lambda: service.generations() == [generation + times], "the signal's reload is done")  # noqa: B023


def test_a_stop_that_comes_meanwhile_is_kept(service: Service) -> None:
    """A SIGTERM at any instant of it stops the service."""
    service.client.reexec()
    service.signal(signal.SIGTERM)
    assert service.process.wait(DEADLINE) == 0


def test_the_program_that_is_on_the_disk_runs_if_it_passes_its_trial(tmp_path: Path) -> None:
    """An upgrade is seen. Broken code, which fails its trial, changes nothing, and the caller is told why."""
    environment = mutated(tmp_path)
    package = tmp_path / "mutated" / "stillup" / "__init__.py"
    broken = tmp_path / "mutated" / "stillup" / "daemon" / "main.py"
    with Service(tmp_path, *GATED, environment=environment) as service:
        pids = _pids(service)
        before = service.status().version
        package.write_text(package.read_text().replace(before, "99.0.0"))
        done = service.cli("supervisor", "reexec")
        assert f"runs stillup 99.0.0 (before: {before})" in done.stdout
        assert service.status().version == "99.0.0"
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
        assert (service.status().reexecs, _pids(service)) == (1, pids)
        broken.write_text(sound)
        assert service.cli("supervisor", "reexec").returncode == 0
        assert (service.status().reexecs, _pids(service)) == (2, pids)
