"""Workers without a supervisor, as an operator finds them: listed, named in what fails, and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stillup.client.orphans import orphans
from stillup.host import shared_cells
from stillup.wire.runtime_paths import FIGURES, bases
from tests.children import spawned
from tests.system.clients import Peer, request
from tests.system.gated_service import GATED
from tests.system.harness import STILLUP, Service, eventually, pids

pytestmark = pytest.mark.xdist_group("orphans")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One where 'stillup ls' looks, on a socket file; the last test ends it."""
    folder = tmp_path_factory.mktemp("orphans")
    name = f"orphans-{uuid.uuid4().hex[:8]}"
    runtime = Path(bases(os.geteuid(), os.environ)[0]) / name
    binds = (f"unix:{folder}/s",)
    with Service(folder, *GATED, "--name", name, binds=binds, workers=2, runtime=runtime) as service:
        yield service


def _listed(service: Service) -> dict[str, object] | None:
    done = subprocess.run([STILLUP, "ls", "--json"], capture_output=True, timeout=30, check=True)
    return next((one for one in json.loads(done.stdout) if one["directory"] == str(service.runtime)), None)


def _die(service: Service) -> list[psutil.Process]:
    """Kill the supervisor; its workers."""
    workers = [psutil.Process(pid) for pid in pids(service).values()]
    service.process.kill()
    service.process.wait()
    return workers


def _lives(worker: psutil.Process) -> bool:
    """Whether it has not ended; whoever is its parent now may take its time to hear of that."""
    try:
        return bool(worker.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_service_is_listed(service: Service) -> None:
    """With its state and its addresses while it has a supervisor, and as orphaned when that has died.

    While one is there its workers are no orphans, whatever the record says.
    """
    with orphans(str(service.runtime)) as left:
        assert not left
    listed = _listed(service)
    assert listed is not None
    assert (listed["state"], listed["workers"], listed["pid"]) == ("serving", 2, service.process.pid)
    workers = _die(service)
    assert (_listed(service) or {}).get("state") == "orphaned"
    done = service.cli("status")
    assert done.returncode == 3
    assert "2 workers serve on" in done.stderr
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    psutil.wait_procs(workers, timeout=20)
    assert _listed(service) is None
    service.start()  # and what was left is in nobody's way


def test_a_stop_that_does_not_wait(service: Service) -> None:
    """With --now they do not finish what they hold."""
    service.tracebacks_expected = True  # of the request that is cut
    with Peer(service.address()) as waits:
        waits.send(request("/wait?gate=never"))
        eventually((service.folder / "never.reached").exists, "the request is in progress")
        workers = _die(service)
        begun = time.monotonic()
        assert service.cli("stop", "--now").returncode == 0
        assert time.monotonic() - begun < 15  # the request would last for 30
        assert not any(map(_lives, workers))
    service.start()


def test_a_stop_ends_them(service: Service) -> None:
    """They finish what they hold and leave, and nothing is left; a second stop finds nobody."""
    with Peer(service.address()) as waits:
        waits.send(request("/wait?gate=g"))
        eventually((service.folder / "g.reached").exists, "the request is in progress")
        workers = _die(service)
        argv = [STILLUP, "stop", "--runtime-dir", str(service.runtime)]
        with spawned(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as stop:
            eventually(lambda: sum(map(_lives, workers)) == 1, "who had nothing to do has left")
            (service.folder / "g").touch()
            assert waits.answer().closes
            waits.sock.close()  # else the worker gives it time to read
            output, _ = stop.communicate(timeout=30)
    assert stop.returncode == 0, output
    assert output.startswith(f"no supervisor runs in {service.runtime}; ending the 2 workers that it left\n")
    assert output.endswith("stopped\n")
    assert not any(map(_lives, workers))
    assert not service.runtime.exists() or not list(service.runtime.iterdir())
    assert shared_cells.found(shared_cells.place(str(service.runtime), FIGURES)) == []
    assert not (service.folder / "s").exists()
    assert service.cli("stop").returncode == 3
