"""Releases that crash soon after they began to serve: taken back, by a supervisor that nobody had to ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.wire.api_shapes import RolloutView
from tests.children import spawned
from tests.system.clients import Peer, request
from tests.system.harness import APP, Service, eventually, in_order, lines, pids
from tests.system.mutations import COUNTS_NO_DEATH, Mutation, mutated

pytestmark = pytest.mark.xdist_group("probation")

CRASHES = """
import asyncio, os, pathlib
async def crash():
    while not pathlib.Path("crash").exists():
        await asyncio.sleep(0.02)
    os._exit(9)
""" + APP.replace(
    "        while True:\n", "        crashing = asyncio.get_running_loop().create_task(crash())\n        while True:\n"
).replace(
    "    body =",
    """    if scope["path"] == "/hold":
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.02)
    body =""",
)
"""An app that serves until the file `crash` is in its directory, and then no process of it lives long."""


class Deployed(Service):
    """A service that runs releases/1, and has releases/2 beside it; `current` says which is to run."""

    def __init__(self, folder: Path, *options: str, workers: int = 1, changes: tuple[Mutation, ...] = ()) -> None:
        environment = mutated(folder, *changes) if changes else None
        options = ("--directory", "current", *options)
        super().__init__(folder, "main:app", *options, workers=workers, environment=environment)
        for version in ("1", "2"):
            self.release(version).mkdir(parents=True)
            Service(self.release(version)).write(CRASHES, version=f"v{version}")
        self.switch("1")

    def release(self, version: str) -> Path:
        return self.folder / "releases" / version

    def switch(self, version: str) -> None:
        link = self.folder / "new"
        link.symlink_to(f"releases/{version}")
        link.rename(self.folder / "current")

    def deploy(self) -> None:
        self.switch("2")
        self.client.reload(wait="cut-over")
        eventually(lambda: self.get().endswith("v2"), "it answers, a moment after the cut-over")

    def crash(self) -> None:
        (self.release("2") / "crash").touch()

    def rolled_back(self, number: int) -> RolloutView:
        """Wait until a rollout has been rolled back by the next one, which alone is there."""

        def look() -> RolloutView | None:
            bad = self.client.rollout(number)
            return bad if bad.outcome == "rolled-back" and self.generations() == [number + 1] else None

        return eventually(look, f"rollout {number} is rolled back")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """One for those whose releases are rolled back, one after the other: afterwards it is as it was."""
    with Deployed(tmp_path_factory.mktemp("deployed")) as service:
        yield service


def test_a_release_that_crashes_is_rolled_back(service: Deployed) -> None:
    """Nobody asks for it: the release before serves again, and the log reads like the story that it is.

    One death in the probation is no reason: that worker is replaced, and the release stays.
    """
    service.deploy()
    before = pids(service)
    os.kill(before["2.1"], signal.SIGKILL)

    def replaced() -> bool:
        now = pids(service)
        return len(now) == 1 and now["2.1"] != before["2.1"]

    eventually(replaced, "it is replaced")
    rollout = service.client.rollout(2)
    assert (rollout.outcome, rollout.deaths) == ("succeeded", 1)
    assert service.get().endswith("v2")
    assert "boots from releases/1 (gen" not in service.log()
    service.crash()
    bad = service.rolled_back(2)
    assert (bad.state, bad.reason, bad.release) == ("rolled-back", "crashed", "releases/2")
    assert bad.deaths >= 2
    assert bad.failure is not None
    assert bad.failure.message == "exited 9"
    cure = service.client.rollout(3)
    assert (cure.outcome, cure.rolls_back, cure.release) == ("succeeded", 2, "releases/1")
    assert cure.why.startswith("gen 2 crashed: 2 deaths")
    assert service.get().endswith("v1")
    assert len(pids(service)) == 1
    service.logged("gen 3 serves")
    in_order(
        service.log(),
        r"gen 2 serves",
        r"worker 2\.1 \(pid \d+\) .*SIGKILL",
        r"worker 2\.1 \(pid \d+\) exited 9",
        r"gen 2 crashes \(2 deaths within \d+ s\): back to releases/1",
        r"gen 3 boots from releases/1 \(gen 2 crashed",
        r"gen 3 serves",
    )


def test_what_was_rolled_back_stays_off(service: Deployed) -> None:
    """The symlink still names it. A plain reload, a signal, another program of the supervisor: none brings it again.

    Each says why, `status` shows it, and --force insists.
    """
    refused = service.reload()
    assert refused.returncode == 1
    assert "releases/2 was rolled back before: as gen 2 its workers crashed" in refused.stderr
    assert "'stillup reload --force' deploys it again" in refused.stderr
    assert "docs/errors.md#rolled-back-before" in refused.stderr
    service.signal(signal.SIGHUP)
    eventually(lambda: list(lines(service.log(), "no reload (SIGHUP): rolled-back-before: releases/2")), "it is logged")
    service.client.reexec()
    eventually(lambda: "no reload (another configuration): rolled-back-before" in service.log(), "nor by a re-exec")
    assert service.until_serving().reexecs == 1
    assert service.generations() == [3]
    shown = service.cli("status").stdout
    assert list(lines(shown, "last", "reload refused (rolled-back-before)", "another configuration")), shown
    assert list(lines(shown, "gen 2 rolled back (crashed): 2.1 (pid", "exited 9", "releases/2")), shown
    assert list(lines(shown, "died", "2.1 (pid", "exited 9", "ago")), shown
    newest, *_, oldest = json.loads(service.cli("status", "--json").stdout)["outcomes"]
    assert (newest["outcome"], newest["reason"]) == ("refused", "rolled-back-before")
    assert (oldest["outcome"], oldest["release"]) == ("succeeded", "releases/1")
    (service.release("2") / "crash").unlink()
    assert service.cli("reload", "--force", "--wait", "none").returncode == 0
    assert service.settled(4).outcome == "succeeded"
    service.switch("1")
    assert service.client.reload(wait="cut-over").generation == 5


@pytest.mark.parametrize("curl", [False, True], ids=["stillup reload", "curl"])
def test_who_watches_is_told(service: Deployed, curl: bool) -> None:
    """`stillup reload` that still watches exits 1 with a line; so does curl, with a problem of type `rolled-back`."""
    (service.release("2") / "crash").unlink(missing_ok=True)
    (service.release("1") / "go").unlink(missing_ok=True)
    service.switch("1")
    number = service.client.reload(wait="drained").id + 1
    argv = [service.argv[0], "reload", "--wait", "probation", "--force", "--runtime-dir", str(service.runtime)]
    if curl:
        url = "http://localhost/v1/reload?wait=drained&force=true"
        argv = ["curl", "-s", "--fail-with-body", "--unix-socket", f"{service.runtime}/control.sock", "-X", "POST", url]

    def cut_over() -> bool:
        shown = service.status().rollout
        return shown is not None and (shown.id, shown.state) == (number, "draining")

    with Peer(service.address()) as held:
        held.send(request("/hold"))
        eventually(lambda: any(w.classes.get("in-progress") for w in service.workers()), "a request is in progress")
        service.switch("2")
        with spawned(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as watching:
            eventually(cut_over, "the new release serves, while the old one has something to finish")
            service.crash()
            output, _ = watching.communicate(timeout=30)
        if curl:
            assert watching.returncode == 22, output
            problem = json.loads(output)
            assert problem["type"] == "urn:stillup:problem:rolled-back"
            assert problem["detail"] == f"generation {number} crashed (2 deaths): rolled back to releases/1"
            assert problem["rollout"]["outcome"] == "rolled-back"
        else:
            assert watching.returncode == 1, output
            assert list(lines(output, f"no  gen {number} crashed (2 deaths): rolled back to releases/1")), output
        eventually(lambda: service.client.rollout(number + 1).outcome == "succeeded", "it is rolled back")
        (service.release("1") / "go").touch()
        assert held.answer().body.endswith("v1")
    service.rolled_back(number)


def test_a_release_changed_in_place_is_not_rolled_back(tmp_path: Path) -> None:
    """There is nothing to go back to: that is told, the slots wait longer each time, and `status` says for how long."""
    service = Service(tmp_path)
    service.write(CRASHES)
    with service:
        service.write(CRASHES, version="v2")
        service.client.reload(wait="cut-over")
        (tmp_path / "crash").touch()
        eventually(lambda: "release-overwritten" in service.log(), "it is refused")
        waiting = eventually(lambda: service.status().generations[0].waiting, "a slot waits")
        assert waiting[0].id == "2.1"
        assert waiting[0].deaths >= 2
        shown = eventually(lambda: list(lines(service.cli("status").stdout, "waits", "died young")), "status says so")
        assert "times in a row, next start in" in shown[0]
        (tmp_path / "crash").unlink()
        eventually(service.workers, "it serves again", deadline=60)
        rollout = service.client.rollout(2)
        assert (rollout.outcome, rollout.reason) == ("succeeded", "release-overwritten")
        assert service.generations() == [2]
    assert len(list(lines(service.log(), "release-overwritten"))) == 1


def test_without_probation_nothing_is_rolled_back(tmp_path: Path) -> None:
    """--probation 0 leaves what crashes in service, with its back-off."""
    with Deployed(tmp_path, "--probation", "0") as service:
        service.deploy()
        service.crash()
        eventually(lambda: "next start in" in service.log(), "a slot waits")
        assert service.client.rollout(2).outcome == "succeeded"
        (service.release("2") / "crash").unlink()
        eventually(service.workers, "it serves again", deadline=60)
        assert service.get().endswith("v2")


def test_the_rollback_is_checked(tmp_path: Path) -> None:
    """A supervisor that counts nobody's death is found out."""
    with Deployed(tmp_path, workers=2, changes=(COUNTS_NO_DEATH,)) as service:
        service.deploy()
        service.crash()
        eventually(lambda: len(list(lines(service.log(), "exited 9"))) >= 3, "its workers crash again and again")
        assert service.client.rollout(2).outcome == "succeeded"
        assert service.client.rollout(2).deaths == 0
