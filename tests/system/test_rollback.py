"""Back to the release before, and a rollout called off: by the control socket, with real releases on a disk."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import psutil

from tests.system.harness import APP, Service, connect, eventually


def post(service: Service, path: str) -> tuple[int, dict[str, Any]]:
    connection = connect(f"unix:{service.runtime}/control.sock")
    connection.request("POST", path)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, body


def shop(folder: Path, *releases: str, options: tuple[str, ...] = ()) -> Service:
    """A service whose `current` leads to release 1; each of the others is there, too."""
    service = Service(folder, "main:app", "--directory", str(folder / "current"), *options)
    for number, source in enumerate(releases, 1):
        (folder / "releases" / str(number)).mkdir(parents=True)
        service.write(source, f"v{number}", f"releases/{number}/main.py")
    deploy(folder, 1)
    return service


def deploy(folder: Path, number: int) -> None:
    link = folder / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"releases/{number}")


def test_back_to_the_release_before(tmp_path: Path) -> None:
    """It serves again although the symlink leads elsewhere, and after a kill -9 of the supervisor, too."""
    with shop(tmp_path, APP, APP) as service:
        deploy(tmp_path, 2)
        assert service.reload().returncode == 0
        assert service.get().endswith("v2")
        service.process.kill()
        service.process.wait()
        service.start()
        status, rollout = post(service, "/v1/rollback?wait=true")
        assert (status, rollout["release"], rollout["rolls_back"]) == (200, "releases/1", 2)
        assert service.get().endswith("v1")


def test_a_release_that_was_changed_in_place(tmp_path: Path) -> None:
    """None to go back to: refused with the way out, and what serves goes on. A worker that it replaces is told of."""
    with shop(tmp_path, APP, APP, options=("--probation", "0")) as service:
        deploy(tmp_path, 2)
        assert service.reload().returncode == 0
        service.write(APP + "# changed\n", "v1", "releases/1/main.py")
        status, problem = post(service, "/v1/rollback")
        assert (status, problem["type"]) == (409, "urn:stillup:problem:release-overwritten")
        assert "a directory of its own" in problem["detail"]
        assert service.get().endswith("v2")
        replace_worker(service)
        assert "changed in place" not in service.log(), "release 2 was not"
        service.write(APP + "# changed\n", "v2", "releases/2/main.py")
        replace_worker(service)
        assert "releases/2 was changed in place: worker 2.1" in service.log(), service.log()


def replace_worker(service: Service) -> None:
    """Let the only worker crash, and wait until another one serves."""
    (worker,) = service.workers()
    psutil.Process(worker.pid).kill()
    eventually(lambda: [w for w in service.workers() if w.pid != worker.pid], "it is replaced")


def test_a_rollout_is_called_off(tmp_path: Path) -> None:
    """While it boots: whoever waits for it is told, its workers leave, and the old generation never noticed."""
    waits = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)\n"
    with shop(tmp_path, APP, waits + APP) as service:
        before = service.get()
        deploy(tmp_path, 2)
        answers: list[tuple[int, dict[str, Any]]] = []
        waiter = threading.Thread(target=lambda: answers.append(post(service, "/v1/reload?wait=true")))
        waiter.start()
        eventually(lambda: service.workers("booting"), "it boots")
        status, rollout = post(service, "/v1/abort")
        assert (status, rollout["state"], rollout["reason"]) == (200, "aborted", "called-off")
        waiter.join(30)
        ((status, problem),) = answers
        assert (status, problem["type"]) == (409, "urn:stillup:problem:rollout-aborted")
        assert "called off" in problem["detail"]
        eventually(lambda: service.generations() == [1], "its workers have left")
        assert service.get() == before
        assert post(service, "/v1/abort")[0] == 409
