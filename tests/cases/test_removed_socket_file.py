"""Something removes the Unix socket's file under a running service: a cleaner of /tmp, or a second service's start."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import pytest

from stillup.client import ProblemError
from tests.system.harness import APP, Service, eventually


def test_it_is_said_and_a_reload_puts_it_back(tmp_path: Path) -> None:
    """`status`, `readyz` and `doctor` say that nobody can connect; the next reload that is not rejected mends it."""
    path = tmp_path / "app.sock"
    with Service(tmp_path, "main:app", binds=[f"unix:{path},mode=0660"], wait=False) as service:
        service.write()
        service.until_serving()
        path.unlink()
        shown = service.cli("status").stdout
        assert f"unix:{path}" in shown
        assert "its file is gone: nobody can connect; 'stillup reload' puts it back" in shown
        with pytest.raises(ProblemError, match="its file is gone") as refused:
            service.client.ready()
        assert refused.value.problem.status == HTTPStatus.SERVICE_UNAVAILABLE
        assert "its file is gone" in service.cli("doctor").stdout
        assert service.cli("health").returncode == 1

        service.write("raise OSError('a bad release')\n")
        service.tracebacks_expected = True
        assert service.reload().returncode == 1
        eventually(lambda: not path.exists(), "a thread removes it: nobody would accept there")

        service.write(APP, version="v2")
        assert service.reload().returncode == 0
        assert service.get().endswith(" v2")
        assert path.stat().st_mode & 0o777 == 0o660
        assert service.client.ready().ready
        assert "its file is gone" not in service.cli("status").stdout

        path.rename(tmp_path / "moved.sock")
        path.touch()
        assert service.reload().returncode == 0, "whoever puts a file there keeps no release in service"
        says = "the file there is no socket; move it away; nobody can connect there, and the rollout"
        eventually(lambda: says in service.log(), says)
        assert "another file is there: nobody can connect" in service.cli("status").stdout
        path.unlink()
        assert service.reload().returncode == 0
        assert service.get().endswith(" v2")
    assert not path.exists()
