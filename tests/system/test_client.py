"""The Python client and the commands made of it, against a real service."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import stillup.client
from stillup.client import ProblemError
from tests.children import spawned
from tests.system.harness import APP, DEADLINE, STILLUP, Service, eventually
from tests.system.mutations import SPEAKS_API_1_9, mutated
from tests.system.other_user import being_nobody, open_folder


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Of releases behind a symlink, the first of which serves."""
    for version in ("41", "42"):
        (tmp_path / "releases" / version).mkdir(parents=True)
        Service(tmp_path / "releases" / version).write(version=version)
    (tmp_path / "current").symlink_to("releases/41")
    service = Service(tmp_path, "main:app", "--directory", "current")
    with service:
        yield service


def _point(service: Service, version: str) -> None:
    (service.folder / "next").symlink_to(f"releases/{version}")
    (service.folder / "next").rename(service.folder / "current")


def _documented(service: Service) -> str:
    """Run the example of the package's docstring; what it prints."""
    example = (inspect.getdoc(stillup.client) or "").partition("::\n\n")[2].partition("\n\nEvery call")[0]
    example = textwrap.dedent(example).replace("/run/stillup/shop", str(service.runtime))
    assert "Client(" in example
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(example, {})
    return printed.getvalue()


def test_the_documented_example(service: Service) -> None:
    """It says what serves now, and why a release was rejected."""
    _point(service, "42")
    assert _documented(service) == "generation 2 serves releases/42\n"
    service.tracebacks_expected = True
    Service(service.folder / "releases" / "42").write("import nosuch\n")
    printed = _documented(service)
    assert printed.startswith("kept the old release: generation 3 was rejected (import)")


def test_every_method(service: Service) -> None:
    """Each gives its shape; what is waited for has happened when the call returns."""
    client = service.client
    me = client.whoami()
    assert (me.uid, me.pid, me.role, "abort" in me.may) == (os.geteuid(), os.getpid(), "admin", True)
    assert client.version().version == client.status().version
    (listener,) = client.listeners()
    assert listener.address == service.address()
    _point(service, "42")
    rollout = client.reload(wait="drained")
    assert (rollout.state, rollout.generation, [one.id for one in client.generations()]) == ("done", 2, [2])
    assert client.rollback(wait="cut-over").release == "releases/41"
    eventually(lambda: service.get().endswith("41"), "it answers, a moment after the cut-over")
    assert client.scale(2, wait=True).outcome == "succeeded"
    assert {worker.id for worker in client.workers() if worker.state == "serving"} == {"3.1", "3.2"}
    asked = client.scale(1)
    eventually(lambda: client.scaling(asked.id).outcome == "succeeded", "one worker serves")
    with pytest.raises(ProblemError) as caught:
        client.abort()
    assert caught.value.code == "out-of-order"
    again = client.reload()
    assert (again.outcome, service.settled(again.id).outcome) == (None, "succeeded")


def test_rollback_and_whoami(service: Service) -> None:
    """``rollback`` shows itself as a reload does, and says why there is nothing to go back to; exit 0 and 1."""
    shown = service.cli("rollback")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("stillup: no release is known that served before")
    _point(service, "42")
    assert service.reload().returncode == 0
    shown = service.cli("rollback", "--wait", "drained")
    assert shown.returncode == 0
    first, *rest = shown.stdout.splitlines()
    assert "gen 2 -> 3   releases/42 -> releases/41" in first
    assert rest[-1] == "  gen 2 has left"
    assert service.get().endswith("41")
    shown = service.cli("whoami")
    assert shown.stdout.startswith(f"{service.status().name}  uid {os.geteuid()}, gid {os.getegid()}, groups ")
    assert "\nrole  admin\nmay   status, " in shown.stdout
    assert json.loads(service.cli("whoami", "--json").stdout)["role"] == "admin"


def test_abort(service: Service) -> None:
    """``abort`` calls off a rollout before its cut-over: 0 there, 1 at whoever waits for it; what serves goes on."""
    slow = "import time\ntime.sleep(60)\n" + APP
    (service.folder / "releases" / "42" / "main.py").write_text(slow)
    shown = service.cli("abort")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("stillup: no rollout is before its cut-over")
    _point(service, "42")
    argv = [STILLUP, "reload", "--runtime-dir", str(service.runtime)]
    with spawned(argv, stdout=subprocess.PIPE, text=True) as waiter:
        eventually(lambda: len(service.generations()) == 2, "it has begun")
        shown = service.cli("abort")
        assert shown.returncode == 0, shown
        assert shown.stdout.startswith(f"ok  {service.status().name}: gen 2 is called off; gen 1 never stopped serving")
        told, _ = waiter.communicate(timeout=DEADLINE)
    assert waiter.returncode == 1
    assert "no  gen 2 called off. gen 1 never stopped serving." in told
    assert service.get().endswith("41")
    again = service.client.reload()
    assert json.loads(service.cli("abort", "--json").stdout)["id"] == again.id


def test_a_client_that_is_too_new(service: Service, tmp_path: Path) -> None:
    """A line names both versions, another where to read on; what leads to a newer supervisor still works."""
    newer = mutated(tmp_path, SPEAKS_API_1_9)

    def stillup(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [STILLUP, *words, "--runtime-dir", str(service.runtime)]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=DEADLINE, check=False, env={**os.environ, **newer}
        )

    shown = stillup("reload")
    assert (shown.returncode, shown.stdout, len(shown.stderr.splitlines())) == (1, "", 2)
    assert shown.stderr.endswith("\n  help: docs/errors.md#client-too-new\n")
    assert "the client speaks API 1.9, this supervisor (stillup " in shown.stderr
    assert "API 1.0 at most" in shown.stderr
    assert service.generations() == [1]
    assert stillup("status").returncode == 0
    assert stillup("supervisor", "reexec").returncode == 0
    assert stillup("stop").returncode == 0


def test_who_may_not_is_told_which_role_it_needs() -> None:
    """Without a role a command is exit 4 and names the role, whether the files or the supervisor deny it."""
    needed = {"status": "viewer", "rollback": "operator", "abort": "operator", "trace": "admin", "stop": "admin"}

    def denied(service: Service, says: str) -> None:
        for command, role in needed.items():
            with being_nobody():
                shown = service.cli(command)
            assert (shown.returncode, shown.stdout) == (4, ""), (command, shown)
            line, link = shown.stderr.splitlines()
            assert says in line
            assert link == "  help: docs/errors.md#not-permitted"
            assert f"needs '{role}'" in line

    with open_folder() as folder:
        service = Service(folder)
        service.write()
        with service:
            denied(service, "is not open to uid")
            service.runtime.chmod(0o755)
            (service.runtime / "control.sock").chmod(0o666)
            denied(service, "has no role here")
            assert service.status().state == "serving"
