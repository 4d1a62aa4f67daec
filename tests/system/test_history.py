"""`stillup history` says what ran, and `rollback --to` puts any of it back into service: real releases on a disk."""

from __future__ import annotations

import json
from pathlib import Path

from tests.system.harness import APP, Service, eventually


def _deploy(service: Service, version: str, source: str = APP) -> int:
    """Put a release into a directory of its own, and reload to it; the exit code."""
    folder = service.folder / "releases" / version
    folder.mkdir(parents=True, exist_ok=True)
    service.write(source, version, f"releases/{version}/main.py")
    link = service.folder / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"releases/{version}")
    return service.cli("reload").returncode if service.runtime.exists() else 0


def test_what_ran_and_back_to_it(tmp_path: Path) -> None:
    """Also of a generation that a kill of the supervisor lies behind; asked again, nothing is done."""
    words = ("--directory", str(tmp_path / "current"), "--probation", "0")
    service = Service(tmp_path, "main:app", *words)
    service.tracebacks_expected = True
    _deploy(service, "v1")
    with service:
        assert (_deploy(service, "v2"), _deploy(service, "bad", "import nosuch"), _deploy(service, "v3")) == (0, 1, 0)
        seen = [(one.generation, one.release, one.outcome, one.can_return) for one in service.client.history()]
        assert seen == [
            (4, "releases/v3", "serves", False),
            (3, "releases/bad", "aborted", False),
            (2, "releases/v2", "succeeded", True),
            (1, "releases/v1", "succeeded", True),
        ]
        said = service.cli("history").stdout.splitlines()
        assert [line.split()[:4] for line in said] == [
            ["gen", "4", "releases/v3", "serves,"],
            ["gen", "3", "releases/bad", "aborted"],
            ["gen", "2", "releases/v2", "succeeded,"],
            ["gen", "1", "releases/v1", "succeeded,"],
        ]
        service.process.kill()
        service.process.wait()
        service.start()
        assert [one.can_return for one in service.client.history()] == [False, False, True, False]
        refused = service.cli("rollback", "--to", "1")
        assert (refused.returncode, "only the name is still known" in refused.stderr) == (1, True)
        done = service.cli("rollback", "--to", "2", "--json")
        assert done.returncode == 0, done.stderr
        rollout = json.loads(done.stdout)
        assert (rollout["changed"], rollout["generation"], rollout["release"]) == (True, 5, "releases/v2")
        eventually(lambda: service.get().endswith("v2"), "it answers, a moment after the cut-over")
        again = service.cli("rollback", "--to", "2", "--json")
        assert (again.returncode, json.loads(again.stdout)["changed"]) == (0, False)
        assert service.client.history()[0].rolls_back == 4
        refused = service.cli("rollback", "--to", "3")
        assert (refused.returncode, "no gen 3 is known that served" in refused.stderr) == (1, True)
        service.write("changed", name="releases/v3/main.py")
        refused = service.cli("rollback", "--to", "4")
        assert (refused.returncode, "releases/v3 was changed in place" in refused.stderr) == (1, True)
        assert service.generations() == [5]
