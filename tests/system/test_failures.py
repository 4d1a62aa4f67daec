"""What an operator gets wrong: one clear message, a non-zero exit, and an old generation that never stopped serving."""

from __future__ import annotations

import socket
import subprocess
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.children import spawned
from tests.system.harness import APP, DEADLINE, STILLUP, Service, check, eventually, lines

LIFESPAN_RAISES = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database at db:5432"})
"""
HANGS = "import time\nprint('here it hangs', flush=True)\ntime.sleep(3600)\n"
UNHEALTHY = APP.replace('"status": 200', '"status": 500')
CAPTURED: Any = {"capture_output": True, "text": True, "timeout": DEADLINE, "check": False}

pytestmark = pytest.mark.xdist_group("failures")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that outlives every bad release; good ones have time to boot on a machine that others use."""
    service = Service(
        tmp_path_factory.mktemp("service"), "main:app", "--health-path", "/healthz", "--boot-timeout", "10"
    )
    service.tracebacks_expected = True
    service.write()
    with service:
        yield service


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
def test_a_bad_release_is_rejected(service: Service, source: str, stage: str, says: str) -> None:
    """A release that cannot serve fails the reload with its own words; the old one goes on, in the same process."""
    before = service.get()
    (old,) = service.generations()
    last = service.status().rollout
    assert last is not None
    assert last.generation is not None
    service.write(source)
    reload = service.reload()
    assert reload.returncode == 1
    assert says in reload.stdout, reload.stdout
    assert f"no  gen {last.generation + 1} rejected ({stage}). gen {old} never stopped serving." in reload.stdout
    # A traceback is the app's own; only the dump of a hung process shows all that was under way.
    assert "/stillup/" not in reload.stdout or stage == "boot"
    assert service.get() == before
    eventually(lambda: service.generations() == [old], "the new generation has left")


def test_the_next_good_release_is_served(service: Service) -> None:
    """What was rejected leaves nothing that would keep another out."""
    service.write("import nosuch\n")
    assert service.reload().returncode == 1
    service.write(version="mended")
    assert service.client.reload(wait="drained").outcome == "succeeded"
    assert service.get().endswith("mended")


def test_what_a_probe_is_answered_is_said_while_it_fails(service: Service) -> None:
    """`reload`, `status` and the log say it live, and when the probe has not been answered yet."""
    service.write(UNHEALTHY)
    (kept,) = service.generations()
    with ThreadPoolExecutor(1) as pool:
        words = [STILLUP, "reload", "--runtime-dir", str(service.runtime)]
        reloading = pool.submit(lambda: subprocess.run(words, **CAPTURED))  # noqa: PLW1510 - it is in there
        booting = eventually(lambda: [w for w in service.workers("booting") if w.probe], "the first answer")
        assert booting[0].probe == "/healthz 500"
        assert f"pid {booting[0].pid}" in "".join(lines(service.cli("status").stdout, "booting", ", /healthz 500"))
        told = f"worker {booting[0].id} (pid {booting[0].pid}) is not healthy yet: /healthz answered 500, "
        eventually(lambda: told in service.log(), "the log says it")
        shown = reloading.result(DEADLINE)
    assert "boot      0/1 ready, /healthz 500 " in shown.stdout, shown.stdout
    assert shown.returncode == 1
    eventually(lambda: service.generations() == [kept], "the new generation has left")


def test_nothing_serves_yet(tmp_path: Path) -> None:
    """While the first generation boots `status` shows it and exits 3, and `health` exits 1 and says what is awaited."""
    service = Service(tmp_path, "main:app", "--health-path", "/healthz", wait=False)
    service.write(UNHEALTHY)
    with service:
        eventually((tmp_path / "rt" / "control.sock").exists, "the control socket")
        shown = eventually(
            lambda: seen if "/healthz 500" in (seen := service.cli("status")).stdout else None, "its boot"
        )
        assert (shown.returncode, shown.stderr) == (3, "")
        health = service.cli("health")
        assert (health.returncode, health.stdout) == (1, "")
        assert "stillup: " in health.stderr


def test_an_app_of_another_interface(service: Service) -> None:
    """A WSGI app is refused by name, before anything is probed: it would answer 500 to everybody."""
    service.write("def app(environ, start_response):\n    return []\n")
    assert "looks like WSGI: --interface wsgi" in service.reload().stdout


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
    timeout = "1" if source is HANGS else "20"
    service = Service(tmp_path, "main:app", "--boot-timeout", timeout, wait=False)
    service.tracebacks_expected = True
    service.write(source)
    with service:
        assert service.process.wait(DEADLINE) == 1
    assert says in service.log()
    assert "gen 1 rejected" in service.log()


def test_an_environment_without_stillup_is_named(tmp_path: Path) -> None:
    """Its interpreter cannot run a worker: the rollout says so, and what to do."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    service = Service(tmp_path, "main:app", "--python", str(python), environment={"PYTHONPATH": ""}, wait=False)
    service.write()
    with service:
        assert service.process.wait(DEADLINE) == 1
    assert f"{python} has no stillup.worker: install stillup " in service.log()
    checked = check(tmp_path, str(python))
    assert checked.returncode == 1
    assert checked.stderr.startswith(f"stillup: {python} has no stillup.worker.app_check: install stillup ")


def test_a_port_in_use_is_named_with_the_process_that_has_it(tmp_path: Path) -> None:
    """`run` on a port that is taken exits 1 with one line that says who holds it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        service = Service(tmp_path, binds=[f"127.0.0.1:{port}"], wait=False)
        service.write()
        with service:
            assert service.process.wait(DEADLINE) == 1
    log = service.log().strip()
    assert f"cannot bind 127.0.0.1:{port}: address already in use by pid" in log
    assert len(log.splitlines()) == 1, log


def test_a_second_supervisor_is_told_who_runs(service: Service) -> None:
    """A second supervisor in one runtime directory exits 1 and names the first; the first goes on."""
    argv, cwd = service.argv, service.folder
    second = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=DEADLINE, check=False)
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
    assert list(lines(service.log(), "worker 1.1 ", "killed by SIGKILL"))


def test_a_reload_supersedes_one_that_boots(tmp_path: Path) -> None:
    """A reload during another's boot is answered at once; the older one ends 'superseded' with exit 5."""
    service = Service(tmp_path, "main:app", "--boot-timeout", "30")
    service.write()
    with service:
        service.write(HANGS)
        argv = _reload_argv(service)
        with spawned(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
            eventually(lambda: "here it hangs" in service.log(), "the first reload boots")
            service.write(version="v2")
            assert service.reload().returncode == 0
            output, _ = first.communicate(timeout=DEADLINE)
        assert first.returncode == 5, output
        assert "superseded" in output
        eventually(lambda: service.get().endswith("v2"), "it answers, a moment after the cut-over")


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
        eventually((tmp_path / "ended-2.1").exists, "the READY one shuts its app down")
        assert service.settled(second.id).outcome == "succeeded"
    assert not list(lines(service.log(), "worker 2.1 ", "killed"))
