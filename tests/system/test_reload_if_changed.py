"""`reload --if-changed` may be asked again and again: something happens where there is something to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import Service, eventually
from tests.system.killable_service import HELD, KillableService


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "main:app", environment={"COLOUR": "red"})
    service.write()
    (tmp_path / "stillup.toml").write_text("probation = 20\n")
    with service:
        yield service


def asked(service: Service, *words: str) -> dict[str, Any]:
    """The rollout that it says."""
    done = service.cli("reload", "--if-changed", "--json", *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_something_is_done_once(service: Service) -> None:
    """Code that was changed comes, and then nothing does; without the flag it comes again."""
    pids = {worker.pid for worker in service.workers()}
    first = asked(service)
    assert (first["changed"], first["generation"], first["outcome"]) == (False, 1, "succeeded")
    assert {worker.pid for worker in service.workers()} == pids
    service.write(version="v2")
    assert [asked(service)["changed"], asked(service)["changed"]] == [True, False]
    assert service.get().endswith("v2")
    said = service.cli("reload", "--if-changed")
    assert (said.returncode, said.stderr) == (0, "")
    assert "ok  " in said.stdout
    assert " gen 2 is " in said.stdout
    assert said.stdout.endswith("; nothing changed\n")
    assert service.client.reload(wait="cut-over").generation == 3


def test_what_the_configuration_says_is_something(service: Service) -> None:
    """Be it of the workers or of how they are watched."""
    for line in ("probation = 30", 'timeout_keep_alive = "7"'):
        (service.folder / "stillup.toml").write_text(f"{line}\n")
        assert [asked(service)["changed"], asked(service)["changed"]] == [True, False], line


def test_a_release_that_failed_is_tried_again(service: Service) -> None:
    """What serves is not what is there."""
    service.tracebacks_expected = True
    service.write("import nosuch\n")
    for _ in range(2):
        done = service.cli("reload", "--if-changed", "--json")
        assert (done.returncode, json.loads(done.stdout)["changed"]) == (1, True)


def test_what_is_being_brought_is_waited_for(tmp_path: Path) -> None:
    """Two that ask for the same get the same rollout; something else takes its place."""
    service = KillableService(tmp_path)
    with service:
        (tmp_path / "hold-2.1").touch()
        service.write(HELD, version="v2")
        first = service.client.reload()
        eventually((tmp_path / "held-2.1").exists, "it boots")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(asked, service)
            joined = service.client.reload(if_changed=True)
            assert (joined.id, joined.changed, joined.outcome) == (first.id, False, None)
            (tmp_path / "hold-2.1").unlink()
            assert (waiting.result()["id"], waiting.result()["changed"]) == (first.id, False)
        service.write(HELD + "# another\n")
        (tmp_path / "hold-3.1").touch()
        service.client.reload()
        service.write(HELD)
        (tmp_path / "hold-3.1").unlink()
        last = service.client.reload(if_changed=True, wait="cut-over")
        assert (last.generation, last.changed) == (4, True)
