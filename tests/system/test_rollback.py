"""Back to the release before, and a rollout called off: by the control socket, with real releases on a disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.system.harness import APP, Service, connect, eventually


def post(service: Service, path: str) -> tuple[int, dict[str, Any]]:
    connection = connect(f"unix:{service.runtime}/control.sock")
    connection.request("POST", path)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, body


pytestmark = pytest.mark.xdist_group("rollback")

WAITS = "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose `current` leads to one of three releases; the third waits for a file."""
    folder = tmp_path_factory.mktemp("shop")
    service = Service(folder, "main:app", "--directory", str(folder / "current"), "--probation", "0")
    for number, source in enumerate((APP, APP, WAITS + APP), 1):
        (folder / "releases" / str(number)).mkdir(parents=True)
        service.write(source, f"v{number}", f"releases/{number}/main.py")
    deploy(service, 1)
    with service:
        yield service


def deploy(service: Service, number: int) -> None:
    link = service.folder / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"releases/{number}")


def serving(service: Service) -> int:
    """The generation that serves, alone."""
    eventually(lambda: len(service.generations()) == 1, "one generation")
    return service.generations()[0]


def test_back_to_the_release_before(shop: Service) -> None:
    """It serves again although the symlink leads elsewhere, and after a kill -9 of the supervisor, too."""
    deploy(shop, 2)
    number = shop.client.reload(wait="cut-over").id
    eventually(lambda: shop.get().endswith("v2"), "it answers, a moment after the cut-over")
    shop.process.kill()
    shop.process.wait()
    shop.start()
    status, rollout = post(shop, "/v1/rollback?wait=true")
    assert (status, rollout["release"], rollout["rolls_back"]) == (200, "releases/1", number)
    eventually(lambda: shop.get().endswith("v1"), "it answers, a moment after the cut-over")


def test_a_rollout_is_called_off(shop: Service) -> None:
    """While it boots: whoever waits for it is told, its workers leave, and the old generation never noticed."""
    generation, before = serving(shop), shop.get()
    deploy(shop, 3)
    answers: list[tuple[int, dict[str, Any]]] = []
    waiter = threading.Thread(target=lambda: answers.append(post(shop, "/v1/reload?wait=true")))
    waiter.start()
    eventually(lambda: shop.workers("booting"), "it boots")
    status, rollout = post(shop, "/v1/abort")
    assert (status, rollout["state"], rollout["reason"]) == (200, "aborted", "called-off")
    waiter.join(30)
    ((status, problem),) = answers
    assert (status, problem["type"]) == (409, "urn:stillup:problem:rollout-aborted")
    assert "called off" in problem["detail"]
    eventually(lambda: shop.generations() == [generation], "its workers have left")
    assert shop.get() == before
    assert post(shop, "/v1/abort")[0] == 409


def test_a_release_that_was_changed_in_place(shop: Service) -> None:
    """None to go back to: refused with the way out, and what serves goes on. A worker that it replaces is told of."""
    deploy(shop, 2)
    shop.client.reload(wait="cut-over")
    shop.write(APP + "# changed\n", "v1", "releases/1/main.py")
    status, problem = post(shop, "/v1/rollback")
    assert (status, problem["type"]) == (409, "urn:stillup:problem:release-overwritten")
    assert "a directory of its own" in problem["detail"]
    eventually(lambda: shop.get().endswith("v2"), "it answers, a moment after the cut-over")
    replace_worker(shop)
    assert "changed in place" not in shop.log(), "release 2 was not"
    shop.write(APP + "# changed\n", "v2", "releases/2/main.py")
    replace_worker(shop)
    shop.logged(f"releases/2 was changed in place: worker {serving(shop)}.1")


def replace_worker(service: Service) -> None:
    """Let the only worker crash, and wait until another one serves."""
    (worker,) = service.workers()
    psutil.Process(worker.pid).kill()
    eventually(lambda: [w for w in service.workers() if w.pid != worker.pid], "it is replaced")
