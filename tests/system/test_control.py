"""The control socket as a stranger with curl sees it."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillup import __version__
from tests.system.harness import APP, Service, connect, eventually
from tests.system.other_user import NOBODY, as_nobody, let_through, open_folder

pytestmark = pytest.mark.xdist_group("control")


@pytest.fixture(scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), workers=2)
    service.tracebacks_expected = True  # of the release that fails
    service.write()
    with service:
        yield service


@pytest.fixture
def service(_service: Service) -> Service:
    """One for all tests, at rest."""
    eventually(lambda: len(_service.generations()) == 1, "what the test before began has ended")
    return _service


def _serving(service: Service) -> int:
    (generation,) = service.generations()
    return generation


def _newest(service: Service) -> int:
    """The number of the last rollout: there is one with each start and each reload."""
    rollout = service.status().rollout
    assert rollout is not None
    return rollout.id


def _ask(service: Service, method: str, path: str) -> tuple[int, dict[str, str], Any]:
    connection = connect(f"unix:{service.runtime}/control.sock")
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, json.loads(body or b"null")


def test_status_has_its_shape(service: Service) -> None:
    """GET /v1/status shows name, version, pid, state, listeners, generations with their workers, and the rollout."""
    serving = _serving(service)
    status, _, body = _ask(service, "GET", "/v1/status")
    assert status == 200
    assert (body["version"], body["pid"], body["state"]) == (__version__, service.process.pid, "serving")
    assert body["listeners"][0].keys() >= {"name", "address"}
    (generation,) = body["generations"]
    assert (generation["id"], generation["state"]) == (serving, "serving")
    assert [worker["id"] for worker in generation["workers"]] == [f"{serving}.1", f"{serving}.2"]
    assert generation["workers"][0].keys() >= {"id", "pid", "state", "connections", "requests"}
    assert body["rollout"]["state"] == "done"


def test_reload_is_accepted_at_once_and_followed_by_its_location(service: Service) -> None:
    """POST /v1/reload answers 202 with the rollout's Location; it ends 'done'."""
    location = f"/v1/rollouts/{_newest(service) + 1}"
    status, headers, _ = _ask(service, "POST", "/v1/reload")
    assert (status, headers["location"]) == (202, location)
    eventually(lambda: _ask(service, "GET", location)[2]["state"] == "done", "the rollout is done")


@pytest.mark.parametrize("wait", ["true", "drained"])
def test_reload_can_be_waited_for(service: Service, wait: str) -> None:
    """?wait=true answers at the cut-over, ?wait=drained when the old generation has left."""
    serving = _serving(service)
    status, _, body = _ask(service, "POST", f"/v1/reload?wait={wait}")
    assert status == 200
    assert body["outcome"] == "succeeded"
    if wait == "drained":
        assert body["state"] == "done"
        assert service.generations() == [serving + 1]


def test_curl_notices_a_failed_reload(service: Service) -> None:
    """A reload that failed is a problem document with the app's own words, and curl --fail-with-body exits non-zero."""
    service.write("import nosuch\n")
    url = "http://localhost/v1/reload?wait=true"
    argv = ["curl", "-s", "--fail-with-body", "--unix-socket", f"{service.runtime}/control.sock", "-X", "POST", url]
    curl = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    service.write()
    assert curl.returncode == 22
    problem = json.loads(curl.stdout)
    assert problem["type"] == "urn:stillup:problem:rollout-aborted"
    assert problem["rollout"]["reason"] == "import"
    assert "No module named 'nosuch'" in problem["rollout"]["failure"]["output"]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nope", 404, "not-found"),
        ("GET", "/v1/reload", 405, "method-not-allowed"),
        ("DELETE", "/v1/status", 405, "method-not-allowed"),
        ("GET", "/v1/rollouts/99", 404, "not-found"),
        ("POST", "/v1/reload?wait=soon", 400, "usage"),
        ("GET", "/v1/scale?workers=1", 405, "method-not-allowed"),
        ("POST", "/v1/scale", 400, "usage"),
        ("GET", "/v1/scalings/99", 404, "not-found"),
    ],
)
def test_errors_are_problem_documents(service: Service, method: str, path: str, status: int, kind: str) -> None:
    """Every error is application/problem+json with a stable type."""
    got, headers, body = _ask(service, method, path)
    assert (got, headers["content-type"]) == (status, "application/problem+json")
    assert body["type"] == f"urn:stillup:problem:{kind}"
    assert body["status"] == status


def test_probes(tmp_path: Path) -> None:
    """/livez answers as soon as the supervisor runs, /readyz only once the service serves."""
    service = Service(tmp_path, wait=False)
    service.write("import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)\n" + APP)
    with service:
        eventually(lambda: "control:" in service.log(), "the supervisor runs")
        assert _ask(service, "GET", "/livez")[0] == 200
        assert _ask(service, "GET", "/readyz")[0] == 503
        (tmp_path / "go").touch()
        service.until_serving()
        assert _ask(service, "GET", "/readyz")[0] == 200


def test_strangers_are_denied_by_the_kernels_word() -> None:
    """Another uid is refused with 403 although somebody opened the files' modes to it."""
    with open_folder() as folder:
        service = Service(folder)
        service.write()
        url = "http://localhost/v1/status"
        argv = ["curl", "-s", "-w", "%{http_code}", "--unix-socket", f"{service.runtime}/control.sock", url]
        argv = as_nobody(*argv)
        with service:
            let_through(service)
            curl = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert curl.stdout.endswith("403"), curl
    assert f"uid {NOBODY}" in curl.stdout


def test_silent_callers_cost_nobody_anything(service: Service) -> None:
    """With 200 connections that say nothing, and some that say half, reloads go on and status answers."""
    silent = []
    for number in range(200):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(f"{service.runtime}/control.sock")
        sock.sendall(b"GET /v1/st"[: number % 10])
        silent.append(sock)
    assert service.status().state == "serving"
    # Whoever wants a change is looked at first, and at that moment all of these are, too.
    eventually(lambda: service.reload().returncode == 0, "a reload goes on")
    for sock in silent:
        sock.close()


def test_a_caller_that_leaves_while_it_waits_changes_nothing(service: Service) -> None:
    """A reload whose waiting caller hangs up goes on to its end."""
    number = _newest(service) + 1
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(f"{service.runtime}/control.sock")
    sock.sendall(b"POST /v1/reload?wait=drained HTTP/1.1\r\nHost: x\r\n\r\n")
    eventually(lambda: _newest(service) == number, "it has begun")
    sock.close()
    assert service.settled(number).outcome == "succeeded"


def test_reloads_from_everywhere_each_get_one_answer(service: Service) -> None:
    """Twelve callers who reload at the same time each get an outcome, and the last one's generation serves."""
    answers: list[tuple[int, int]] = []
    """The status of each, and its rollout."""

    def call() -> None:
        status, _, body = _ask(service, "POST", "/v1/reload?wait=true")
        answers.append((status, (body if status == 200 else body["rollout"])["id"]))

    service.client.scale(1, wait=True)  # twelve generations: more workers would show nothing more
    callers = [threading.Thread(target=call) for _ in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(answers) == 12
    assert {status for status, _ in answers} <= {200, 409}
    serving = [rollout for status, rollout in answers if status == 200]
    assert serving
    assert max(serving) == max(rollout for _, rollout in answers)
    eventually(lambda: len(service.generations()) == 1, "it comes to rest")
    assert service.client.rollout(max(serving)).generation == _serving(service)
    service.client.scale(2, wait=True)
