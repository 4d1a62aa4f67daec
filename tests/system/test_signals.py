"""Signals at any time: never a traceback, never an orphan, and TERM, INT and QUIT exit 0."""

from __future__ import annotations

import os
import pty
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from stillup.client import NotRunningError
from tests.system.harness import APP, DEADLINE, FULL, Service, eventually, open_socket

SLOW_BOOT = "import time\ntime.sleep(0.6)\n" + APP
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
SOON_SEEN = {"PYTHONFAULTHANDLER": "1"}
"""Where signals that nest run over the end of their stack, what they write over is something that is used."""
SHRUGGED = [
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
]
OTHERS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU]


def _stops(service: Service, number: signal.Signals) -> None:
    service.signal(number)
    assert service.process.wait(DEADLINE) == 0


def _first(numbers: list[signal.Signals], which: int) -> list[signal.Signals]:
    """All of them, or one, another one for each test: one handler has them all."""
    return numbers if FULL else [numbers[which]]


@pytest.mark.parametrize("number", _first(STOPS, 1), ids=lambda n: n.name)
def test_stop_during_the_first_boot(tmp_path: Path, number: signal.Signals) -> None:
    """A stop during the first boot ends it with exit code 0, wherever it hits."""
    service = Service(tmp_path, wait=False)
    service.write(SLOW_BOOT)
    with service:
        eventually(lambda: "boots from" in service.log(), "the boot has begun")
        _stops(service, number)


@pytest.mark.parametrize("number", _first(STOPS, 2), ids=lambda n: n.name)
def test_stop_during_a_rollout(tmp_path: Path, number: signal.Signals) -> None:
    """A stop during a rollout ends both generations and exits 0."""
    service = Service(tmp_path)
    service.write()
    with service:
        service.write(SLOW_BOOT)
        service.client.reload()
        eventually(lambda: "gen 2 boots" in service.log(), "the rollout has begun")
        _stops(service, number)


def test_stop_at_any_instant_of_the_start(tmp_path: Path) -> None:
    """From the moment that the supervisor's own code runs, TERM exits 0 and leaves nothing."""
    chance = random.Random(7)
    for attempt in range(40 if FULL else 3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        service = Service(folder, wait=False)
        service.write()
        with service:
            eventually(lambda s=service: _blocks(s.process.pid, signal.SIGTERM), "TERM is blocked")  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.8))  # not for an event: the instant itself is what is tried
            service.signal(signal.SIGTERM)
            assert service.process.wait(DEADLINE) == 0, service.log()


def _blocks(pid: int, number: signal.Signals) -> bool:
    """Whether a process has blocked or handles a signal."""
    masks = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("SigBlk", "SigCgt"):
            masks[key] = int(value, 16)
    return any(mask >> (number - 1) & 1 for mask in masks.values())


def test_other_signals_are_never_fatal(tmp_path: Path) -> None:
    """HUP, USR1, USR2, TTIN and TTOU, in any order, during boots and rollouts, end nothing; TERM does, with 0."""
    chance = random.Random(11)
    service = Service(tmp_path, workers=2)
    service.write()
    with service:
        for _ in range(200 if FULL else 20):
            service.signal(chance.choice(OTHERS))
            service.get()
        eventually(lambda: service.status().state == "serving" and len(service.generations()) == 1, "it comes to rest")
        assert service.process.poll() is None
        _stops(service, signal.SIGTERM)


def test_hup_reloads_and_ttin_and_ttou_scale(tmp_path: Path) -> None:
    """HUP puts a new generation into service; TTIN adds a worker, TTOU takes one, and the last one stays; INT stops."""
    service = Service(tmp_path)
    service.write()
    with service:
        service.signal(signal.SIGHUP)
        eventually(lambda: service.get().startswith("2 "), "generation 2 answers")
        eventually(lambda: service.generations() == [2], "generation 1 has left")
        service.signal(signal.SIGTTIN)
        eventually(lambda: len(service.workers()) == 2, "two workers")
        service.signal(signal.SIGTTOU)
        eventually(lambda: len(service.workers()) == 1 and len(service.family()) == 1, "one worker")
        service.signal(signal.SIGTTOU)
        eventually(lambda: "at least 1 worker" in service.log(), "refused")
        assert service.get()
        _stops(service, signal.SIGINT)


def test_a_second_stop_hurries(tmp_path: Path) -> None:
    """A second TERM ends a drain that waits for a request."""
    service = Service(tmp_path, "main:app", "--drain-timeout", "60")
    service.tracebacks_expected = True  # uvicorn logs the request that is cancelled
    service.write("import asyncio\n" + APP.replace("    body =", "    await asyncio.sleep(600)\n    body ="))
    with service:
        client = open_socket(service.address())
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: any(w.connections for w in service.workers()), "the request is under way")
        service.signal(signal.SIGTERM)
        eventually(lambda: service.status().state == "stopping", "it stops")
        began = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.process.wait(DEADLINE) == 0
        assert time.monotonic() - began < DEADLINE  # 60 are allowed
        client.close()


def test_signals_to_a_worker(tmp_path: Path) -> None:
    """A worker shrugs off what a terminal sends to everybody; TERM makes it drain, and its slot is filled again.

    The supervisor stops at QUIT.
    """
    service = Service(tmp_path, environment=SOON_SEEN)
    service.write()
    with service:
        pid = service.workers()[0].pid
        assert pid is not None
        for number in (signal.SIGSTOP, *SHRUGGED, signal.SIGCONT):  # so that they come at the same instant
            os.kill(pid, number)
        assert service.get().split()[1] == str(pid)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: service.get().split()[1] != str(pid), "another worker")
        _stops(service, signal.SIGQUIT)
    assert "SIGSEGV" not in service.log()


def test_all_at_once(tmp_path: Path) -> None:
    """A supervisor to which everything comes at the same instant, a stop among it, stops in order."""
    service = Service(tmp_path, environment=SOON_SEEN)
    service.write()
    with service:
        for number in (signal.SIGSTOP, *OTHERS, *STOPS, signal.SIGCONT):
            service.signal(number)
        assert service.process.wait(DEADLINE) == 0
    assert "SIGSEGV" not in service.log()


def test_a_terminal_that_hangs_up_stops_the_service(tmp_path: Path) -> None:
    """HUP from a terminal that is gone stops; it is no reload."""
    service = Service(tmp_path)
    service.write()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(service.argv[0], service.argv)

    def serves() -> bool:
        with suppress(NotRunningError):
            return service.status().state == "serving"
        return False

    eventually(serves, "it serves")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not service.runtime.exists()
