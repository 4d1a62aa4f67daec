"""Workers that die, hang, wait in vain or are stopped while they have no supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from stillup.daemon.workers.takeover import PATIENCE
from tests.system.clients import Ended, Peer
from tests.system.harness import eventually, lines
from tests.system.killable_service import KillableService, Start
from tests.system.mutations import SILENT_AT_1_S, mutated
from tests.system.steady_load import Traffic


def test_who_died_is_replaced_and_who_hangs_keeps_nobody_waiting(start: Start) -> None:
    """A worker that dies while there is no supervisor is replaced by the next; the other is the same process.

    Custody comes back from the others at once; a stopped one, when it goes on, is one of the service's again.
    """
    service = start()
    pids = service.pids()
    service.die()
    os.kill(pids["1.1"], signal.SIGKILL)
    psutil.Process(pids["1.2"]).status()
    service.start()

    def replaced() -> bool:
        now = service.pids()
        return len(now) == 2 and now["1.2"] == pids["1.2"] and now["1.1"] != pids["1.1"]

    eventually(replaced, "1.1 is replaced")
    service.logged("1.1", "ended while no supervisor ran")
    pids, before = service.pids(), len(service.log())
    service.die()
    os.kill(pids["1.1"], signal.SIGSTOP)
    try:
        began = time.monotonic()
        service.start()
        assert time.monotonic() - began < PATIENCE / 2
    finally:
        os.kill(pids["1.1"], signal.SIGCONT)
    with Traffic(service.address()) as traffic:
        assert service.pids() == pids
        service.client.reload(wait="cut-over")
        traffic.moves_to(service.rolled_out(2))
    assert not list(lines(service.log()[before:], "killed"))


def test_nobody_lives_any_more(start: Start) -> None:
    """The next supervisor starts from nothing: whether the workers were killed, were told to leave, or gave up.

    One without a supervisor that is sent SIGTERM drains at once, since nobody could replace it. One that no supervisor
    takes back in time finishes, drains and leaves.
    """
    service = start()
    service.die()
    for process in service.processes():
        process.kill()
    _starts_from_nothing(service)
    service.die()
    for process in service.processes():
        process.terminate()
    eventually(lambda: not service.processes(), "they leave")
    service.change("--orphan-timeout", "0.5")
    _starts_from_nothing(service)
    with Peer(service.address()) as peer:
        assert peer.get().status == 200
        service.die()
        assert peer.ends()
    eventually(lambda: not service.processes(), "they leave")
    assert service.record().exists()
    _starts_from_nothing(service)
    assert "no record of what ran here" not in service.log()


def _starts_from_nothing(service: KillableService) -> None:
    service.start()
    assert service.generations() == [1]
    assert service.get()


def test_the_only_worker_hangs(tmp_path: Path, start: Start) -> None:
    """A worker that alone holds the listeners and says nothing is waited for, then ended; its slot is filled."""
    copy = mutated(tmp_path, SILENT_AT_1_S)
    service = start(workers=1, path=copy["PYTHONPATH"])
    pids = service.pids()
    service.die()
    os.kill(pids["1.1"], signal.SIGSTOP)
    service.start()
    eventually(lambda: service.pids().get("1.1", pids["1.1"]) != pids["1.1"], "another serves in its slot")
    assert service.get()
    service.logged(f"(pid {pids['1.1']}) holds the listeners and says nothing: killed")


def test_killed_during_a_stop(tmp_path: Path, start: Start) -> None:
    """A stop ends with the supervisor that was told to: the next one serves, while the old worker finishes."""
    service = start(workers=1)
    with Peer(service.address()) as peer:
        peer.send(b"GET /wait?gate=g HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((tmp_path / "g.reached").exists, "it is in progress")
        service.process.terminate()
        eventually(lambda: service.status().state == "stopping", "it stops")
        service.die()
        service.start()
        assert service.get()
        assert set(service.pids()) == {"2.1"}
        (tmp_path / "g").touch()
        assert peer.answer().generation == 1
    service.rolled_out(2)


def test_a_taken_over_service_stops(start: Start) -> None:
    """A stop of workers that were taken over is as any: they drain, leave, and nothing is left.

    A second supervisor beside the one that has taken over is told who that is.
    """
    service = start()
    service.die()
    service.start()
    second = subprocess.run(service.argv, capture_output=True, text=True, cwd=service.folder, timeout=20, check=False)
    assert second.returncode == 1
    assert f"pid {service.process.pid}" in second.stderr
    with Peer(service.address()) as peer:
        assert peer.get().status == 200
        service.process.terminate()
        with suppress(Ended):
            peer.get()
    assert service.process.wait(20) == 0
    assert not service.processes()
