"""More and fewer workers, and new ones in the place of worn ones: never fewer that serve than are wanted."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.children import spawned
from tests.system.harness import APP, Service, eventually, lines

pytestmark = pytest.mark.xdist_group("scale")

HANGS = "import time\nprint('here it hangs', flush=True)\ntime.sleep(3600)\n"
GROWS = "held = []\n" + APP.replace(
    "    body =", '    if scope["path"] == "/grow":\n        held.append(b"x" * (200 << 20))\n    body ='
)


def _argv(service: Service, query: str) -> list[str]:
    socket = f"{service.runtime}/control.sock"
    url = f"http://localhost/v1/scale{query}"
    return ["curl", "-s", "-i", "--fail-with-body", "--unix-socket", socket, "-X", "POST", url]


def _curl(service: Service, query: str) -> tuple[int, int, Any, str]:
    """How curl exits, the status, the body, the head."""
    return _read(subprocess.run(_argv(service, query), capture_output=True, text=True, timeout=60, check=False))


def _read(curl: subprocess.CompletedProcess[str]) -> tuple[int, int, Any, str]:
    head, _, body = curl.stdout.replace("\r\n", "\n").partition("\n\n")
    assert head, curl
    return curl.returncode, int(head.split()[1]), json.loads(body), head


@contextmanager
def _cli(service: Service, workers: int, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`stillup scale` that goes on beside the test."""
    argv = [service.argv[0], "scale", str(workers), "--runtime-dir", str(service.runtime)]
    with (
        output.open("wb") as file,
        spawned(argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL) as process,
    ):
        yield process


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all that scale it; the last test stops it."""
    service = Service(tmp_path_factory.mktemp("scaled"))
    service.tracebacks_expected = True
    service.write()
    with service:
        yield service


@pytest.fixture
def service(scaled: Service) -> Service:
    """The service with one worker, and an app that serves."""
    scaled.write()
    scaled.client.scale(1, wait=True)
    eventually(lambda: len(scaled.family()) == 1 and len(scaled.generations()) == 1, "one worker")
    return scaled


def test_scale_by_command(service: Service) -> None:
    """`stillup scale` returns when as many serve: three when it says so, and one again; --json tells the same."""
    first = service.workers()[0].pid
    shown = service.cli("scale", "3")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [w.id for w in service.workers()] == ["1.1", "1.2", "1.3"]
    head, *_, ok = shown.stdout.splitlines()
    assert head == f"{service.folder.name}  1 -> 3 workers"
    assert ok.startswith("ok  3 of 3 serve")
    eventually(lambda: len({service.get().split()[1] for _ in range(12)}) == 3, "all three answer")
    shown = service.cli("scale", "1", "--json")
    assert shown.returncode == 0
    view = json.loads(shown.stdout)
    assert (view["outcome"], view["workers_before"], view["workers_wanted"], view["workers_serving"]) == (
        "succeeded",
        3,
        1,
        1,
    )
    assert [w.pid for w in service.workers()] == [first]
    eventually(lambda: len(service.family()) == 1, "the others have left")
    assert service.get().split()[1] == str(first)


def test_scale_by_curl(service: Service) -> None:
    """POST /v1/scale?workers=N answers 202 with a Location to follow, or with wait=true 200 when as many serve."""
    _, status, body, head = _curl(service, "?workers=2")
    assert (status, body["state"], body["outcome"]) == (202, "under-way", None)
    assert f"location: /v1/scalings/{body['id']}\n" in head.lower()
    eventually(lambda: service.client.scaling(body["id"]).outcome == "succeeded", "two workers")
    assert len(service.workers()) == 2
    code, status, body, _ = _curl(service, "?workers=3&wait=true")
    assert (code, status, body["state"], body["workers_serving"]) == (0, 200, "done", 3)
    assert len(service.workers()) == 3
    code, status, body, _ = _curl(service, "?workers=1&wait=true")
    assert (code, status, body["workers_serving"]) == (0, 200, 1)
    assert len(service.workers()) == 1
    service.client.reload(wait="cut-over")
    assert len(service.workers()) == 1, "a later generation has as many"


def test_what_cannot_be_had(service: Service) -> None:
    """No number, no workers at all, too many, or what is no number: a problem that says so, and nothing changes."""
    before = service.log().count("workers wanted")
    for query, says in (
        ("", "needs workers"),
        ("?workers=", "workers=: it is a number"),
        ("?workers=0", "at least 1 worker"),
        ("?workers=-1", "at least 1 worker"),
        ("?workers=two", "workers=two: it is a number"),
        ("?workers=2.5", "workers=2.5: it is a number"),
        ("?workers=%D9%A3", "it is a number"),
        ("?workers=1001", "1000 are the most"),
        (f"?workers={'9' * 5000}", "it is a number"),
        ("?workers=3&wait=probation", "wait=probation: it is 'true' or 'drained'"),
    ):
        code, status, problem, head = _curl(service, query)
        assert (code, status, problem["type"]) == (22, 400, "urn:stillup:problem:usage"), query
        assert says in problem["detail"]
        assert "application/problem+json" in head
    for word in ("0", "two", "1001"):
        shown = service.cli("scale", word)
        assert shown.returncode == 2
        assert "Invalid value for 'N'" in shown.stderr
    assert service.cli("scale").returncode == 2
    assert service.client.status().state == "serving"
    assert len(service.workers()) == 1
    assert service.log().count("workers wanted") == before


def test_a_rollout_is_not_scaled(service: Service) -> None:
    """While a generation boots the number stays as it is: 409, and exit 1."""
    service.write(HANGS)
    generation = service.client.reload().generation
    code, status, problem, _ = _curl(service, "?workers=2&wait=true")
    assert (code, status, problem["type"]) == (22, 409, "urn:stillup:problem:rollout-in-progress")
    shown = service.cli("scale", "2")
    assert shown.returncode == 1
    assert f"gen {generation} is before its cut-over; 'stillup abort' calls it off" in shown.stderr
    service.client.abort()


def test_a_new_worker_that_fails_ends_the_wait(service: Service) -> None:
    """Who waits is told which worker failed and with which last words; when the cause is gone the slot is filled."""
    (serving,) = service.workers()
    service.write("import nosuch\n")
    code, status, problem, _ = _curl(service, "?workers=2&wait=true")
    assert (code, status, problem["type"]) == (22, 409, "urn:stillup:problem:scaling-aborted")
    failed = serving.id.replace(".1", ".2")
    assert f"1 of 2 workers serve (import): {failed} ModuleNotFoundError" in problem["detail"]
    assert "unless you scale to 1" in problem["detail"]
    assert "No module named 'nosuch'" in problem["scaling"]["failure"]["output"]
    shown = service.cli("scale", "3")
    assert shown.returncode == 1
    assert "No module named 'nosuch'" in shown.stdout
    assert "no  1 of 3 serve (import)" in shown.stdout
    assert "'stillup scale 2' gives it up" in shown.stdout
    assert service.get()
    service.write()
    eventually(lambda: len(service.workers()) == 3, "three workers after all")


def test_a_later_request_ends_the_wait(service: Service, tmp_path: Path) -> None:
    """Who waits for a number that somebody else has changed meanwhile is told so: 409, and exit 5."""
    service.write(HANGS)
    before = len(service.log())
    output = tmp_path / "out"
    with _cli(service, 3, output) as watching:
        eventually(lambda: "3 workers wanted" in service.log()[before:], "it is asked for")
        service.client.scale(1, wait=True)
        assert watching.wait(20) == 5
    assert "(superseded)" in output.read_text()
    with spawned(_argv(service, "?workers=4&wait=true"), stdout=subprocess.PIPE, text=True) as waiting:
        eventually(lambda: "4 workers wanted" in service.log()[before:], "it is asked for")
        service.signal(signal.SIGTTOU)
        told, _ = waiting.communicate(timeout=20)
    code, status, problem, _ = _read(subprocess.CompletedProcess([], waiting.returncode, told))
    assert (code, status, problem["type"]) == (22, 409, "urn:stillup:problem:superseded")
    service.client.scale(1, wait=True)
    eventually(lambda: len(service.family()) == 1, "nobody is left behind")


def test_what_takes_longer_is_shown_and_can_be_left(service: Service, tmp_path: Path) -> None:
    """Each second that it takes is a line; Ctrl-C ends the watching with 130, and the workers stay wanted."""
    number = service.client.scale(1, wait=True).id + 1
    service.write(HANGS)
    output = tmp_path / "out"
    with _cli(service, 2, output) as watching:
        eventually(lambda: list(lines(output.read_text(), "1 of 2 serve", " s ...")), "a second has passed")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    assert "2 workers stay wanted" in output.read_text()
    shown = service.client.scaling(number)
    assert (shown.workers_wanted, shown.outcome) == (2, None)


def test_a_stop_ends_the_wait(service: Service) -> None:
    """Who waits when the service is stopped is told so."""
    service.write(HANGS)
    before = service.log().count("here it hangs")
    with spawned(_argv(service, "?workers=2&wait=true"), stdout=subprocess.PIPE, text=True) as waiting:
        eventually(lambda: service.log().count("here it hangs") > before, "the new worker boots")
        service.signal(signal.SIGTERM)
        output, _ = waiting.communicate(timeout=20)
    code, status, problem, _ = _read(subprocess.CompletedProcess([], waiting.returncode, output))
    assert (code, status, problem["type"]) == (22, 503, "urn:stillup:problem:stopping")
    assert service.process.wait(20) == 0


def _replaced(service: Service, wanted: int, old: set[int | None]) -> bool:
    """Whether other workers serve by now; at no look are there fewer than wanted, or two replacements under way."""
    workers = [worker for generation in service.status().generations for worker in generation.workers]
    serving = {worker.pid for worker in workers if worker.state == "serving"}
    assert len(serving) == wanted, workers
    assert sum(worker.state in ("spawned", "booting", "ready", "accepting") for worker in workers) <= 1, workers
    assert service.get()
    return not serving & old


def test_who_is_too_old_is_replaced(tmp_path: Path) -> None:
    """Workers past --max-worker-age are replaced one at a time, another serving first, and no request is lost."""
    service = Service(tmp_path, "main:app", "--max-worker-age", "1", workers=2)
    service.write()
    with service:
        old = {worker.pid for worker in service.workers()}
        eventually(lambda: _replaced(service, 2, old), "two other workers")
    assert list(lines(service.log(), "worker 1.1 is worn", "(--max-worker-age)"))


def test_who_holds_too_much_memory_is_replaced(tmp_path: Path) -> None:
    """A worker past --max-worker-rss is replaced, another serving first; one that holds less is left alone."""
    service = Service(tmp_path, environment={"STILLUP_MAX_WORKER_RSS": "150M"})
    service.write(GROWS)
    with service:
        old = {worker.pid for worker in service.workers()}
        before = service.workers()[0].requests
        assert service.get()
        eventually(lambda: service.workers()[0].requests > before, "a report")
        assert {worker.pid for worker in service.workers()} == old
        service.get("/grow")
        eventually(lambda: _replaced(service, 1, old), "another worker")
    assert list(lines(service.log(), "worker 1.1 is worn", "(--max-worker-rss)"))


def test_a_limit_that_every_worker_exceeds_costs_no_service(tmp_path: Path) -> None:
    """Workers that are worn as soon as they serve are replaced later each time, and serve meanwhile."""
    (tmp_path / "stillup.toml").write_text('max-worker-rss = "1M"\n')
    service = Service(tmp_path)
    service.write()
    with service:
        eventually(lambda: _replaced(service, 1, set()) and "wore out young 2 times" in service.log(), "a longer wait")
        service.client.scale(2, wait=True)
        assert len(service.workers()) == 2
