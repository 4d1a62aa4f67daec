"""What an operator gets wrong: one clear message, a non-zero exit, and an old generation that never stopped serving."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import APP, Service, eventually, lines

LIFESPAN_RAISES = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database at db:5432"})
"""
HANGS = "import time\nprint('here it hangs', flush=True)\ntime.sleep(3600)\n"
UNHEALTHY = APP.replace('"status": 200', '"status": 500')


@pytest.mark.parametrize(
    ("source", "stage", "says"),
    [
        pytest.param("import nosuch\n", "import", "ModuleNotFoundError: No module named 'nosuch'", id="import"),
        pytest.param("app = 1 +\n", "import", "SyntaxError: invalid syntax", id="syntax"),
        pytest.param("raise OSError('no file \\udcff')\n", "import", r"OSError: no file \udcff", id="surrogate"),
        pytest.param("raise OSError('no' * 100_000)\n", "import", "OSError: nono", id="long"),
        pytest.param("wrong = 1\n", "import", 'Attribute "app" not found in module "main"', id="attribute"),
        pytest.param(LIFESPAN_RAISES, "lifespan", "no database at db:5432", id="lifespan"),
        pytest.param(HANGS, "boot", 'main.py", line 3', id="hang"),
        pytest.param(UNHEALTHY, "probe", "/healthz answered 500", id="probe"),
        pytest.param("import os\nos._exit(7)\n", "exit", "exited 7", id="exit"),
    ],
)
def test_a_bad_release_is_rejected(tmp_path: Path, source: str, stage: str, says: str) -> None:
    """A release that cannot serve fails the reload with its own words; the old one goes on, in the same process."""
    service = Service(tmp_path, "main:app", "--health-path", "/healthz", "--boot-timeout", "3")
    service.tracebacks_expected = True
    service.write()
    with service:
        before = service.get()
        service.write(source)
        reload = service.reload()
        assert reload.returncode == 1
        assert says in reload.stdout, reload.stdout
        assert f"no  gen 2 rejected ({stage}). gen 1 never stopped serving." in reload.stdout
        # A traceback is the app's own; only the dump of a hung process shows all that was under way.
        assert "/supervisor/" not in reload.stdout or stage == "boot"
        assert service.get() == before
        assert service.generations() == [1]
        service.write(version="v2")
        assert service.reload().returncode == 0
        assert service.get().endswith("v2")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("import nosuch\n", "No module named 'nosuch'", id="import"),
        pytest.param(LIFESPAN_RAISES, "no database at db:5432", id="lifespan"),
        pytest.param(HANGS, "not ready after 1 s", id="hang"),
    ],
)
def test_a_first_release_that_cannot_serve_ends_the_run(tmp_path: Path, source: str, says: str) -> None:
    """`run` exits 1 with the app's own words when the very first generation cannot serve."""
    service = Service(tmp_path, "main:app", "--boot-timeout", "1", wait=False)
    service.tracebacks_expected = True
    service.write(source)
    with service:
        assert service.process.wait(20) == 1
    assert says in service.log()
    assert "gen 1 rejected" in service.log()


def test_a_port_in_use_is_named_with_its_holder(tmp_path: Path) -> None:
    """`run` on a port that is taken exits 1 with one line that says who holds it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        service = Service(tmp_path, binds=[f"127.0.0.1:{port}"], wait=False)
        service.write()
        with service:
            assert service.process.wait(20) == 1
    log = service.log().strip()
    assert f"cannot bind 127.0.0.1:{port}: address already in use by pid" in log
    assert len(log.splitlines()) == 1, log


def test_a_second_supervisor_is_told_who_runs(tmp_path: Path) -> None:
    """A second supervisor in one runtime directory exits 1 and names the first; the first goes on."""
    service = Service(tmp_path)
    service.write()
    with service:
        second = subprocess.run(service.argv, capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False)
        assert second.returncode == 1
        assert f"pid {service.process.pid}" in second.stderr
        assert service.get()


def test_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    """A worker that dies is respawned at once in its slot; the other serves meanwhile."""
    service = Service(tmp_path, workers=2)
    service.write()
    with service:
        victim = service.workers()[0]
        assert victim.pid is not None
        for process in service.family():
            if process.pid == victim.pid:
                process.kill()
        service.get()

        def replaced() -> bool:
            workers = service.workers()
            return len(workers) == 2 and victim.pid not in {w.pid for w in workers}

        eventually(replaced, "two workers serve again")
        assert {w.id for w in service.workers()} == {"1.1", "1.2"}
    assert list(lines(service.log(), "1.1", "killed by SIGKILL"))


def test_a_reload_supersedes_one_that_boots(tmp_path: Path) -> None:
    """A reload during another's boot is answered at once; the older one ends 'superseded' with exit 5."""
    service = Service(tmp_path, "main:app", "--boot-timeout", "30")
    service.write()
    with service:
        service.write(HANGS)
        first = subprocess.Popen([*_reload_argv(service)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        eventually(lambda: "here it hangs" in service.log(), "the first reload boots")
        service.write(version="v2")
        assert service.reload().returncode == 0
        output, _ = first.communicate(timeout=20)
        assert first.returncode == 5, output
        assert "superseded" in output
        assert service.get().endswith("v2")


def _reload_argv(service: Service) -> list[str]:
    return [service.argv[0], "reload", "--runtime-dir", str(service.runtime)]


HALF_READY = """
import os, pathlib, time
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        if os.environ["STILLUP_GENERATION"] == "2" and os.environ["STILLUP_WORKER"] == "2":
            time.sleep(600)
        pathlib.Path(f"started-{os.environ['STILLUP_GENERATION']}.{os.environ['STILLUP_WORKER']}").touch()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        pathlib.Path(f"ended-{os.environ['STILLUP_GENERATION']}.{os.environ['STILLUP_WORKER']}").touch()
        await send({"type": "lifespan.shutdown.complete"})
"""


def test_who_was_ready_leaves_in_order(tmp_path: Path) -> None:
    """A worker that is READY when its rollout is superseded shuts its app down and leaves at once; nobody kills it."""
    service = Service(tmp_path, workers=2)
    service.write(HALF_READY)
    with service:
        first = service.client.reload()
        eventually(lambda: service.client.rollout(first.id).workers_ready == 1, "one of two is READY")
        second = service.client.reload()
        assert service.client.rollout(first.id).reason == "superseded"
        eventually((tmp_path / "ended-2.1").exists, "the READY one shuts its app down", deadline=5)
        assert service.settled(second.id).outcome == "succeeded"
    assert not list(lines(service.log(), "2.1", "killed"))
