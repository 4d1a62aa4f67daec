"""A working directory that is deleted under the supervisor."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.system.harness import DEADLINE, STILLUP, Service


def test_a_working_directory_that_is_deleted(tmp_path: Path) -> None:
    """A reload names the directory that is gone, and the old generation serves; once it is there again it reloads."""
    service = Service(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    service.popen = {"cwd": home}
    service.write(name="home/main.py")
    with service:
        before = service.get()
        shutil.rmtree(home)
        reload = service.reload()
        assert reload.returncode == 1
        assert f"the directory {home} is not there (--directory)" in reload.stderr
        assert service.get() == before
        home.mkdir()
        service.write(name="home/main.py", version="v2")
        service.client.reload(wait="drained")
        assert service.get().endswith("v2")


def test_a_directory_that_is_alive(tmp_path: Path) -> None:
    """With a --directory of its own a service reloads although the one that it was started in is gone.

    `status` finds a supervisor from a directory that is gone, too.
    """
    app, start = tmp_path / "app", tmp_path / "start"
    app.mkdir()
    start.mkdir()
    service = Service(tmp_path, "main:app", "--directory", str(app))
    service.popen = {"cwd": start}
    service.write(name="app/main.py")
    with service:
        start.rmdir()
        service.write(name="app/main.py", version="v2")
        service.client.reload(wait="drained")
        assert service.get().endswith("v2")
        done = _where_nothing_is(tmp_path, "status", service.runtime)
        assert done.returncode == 0, done.stderr


def test_a_start_where_nothing_is(tmp_path: Path) -> None:
    """Started in a directory that has been deleted, `run` says so."""
    done = _where_nothing_is(tmp_path, "run", tmp_path / "rt", "main:app")
    assert done.returncode == 2, done
    assert "the working directory is gone" in done.stderr
    assert "Traceback" not in done.stderr


def _where_nothing_is(folder: Path, command: str, runtime: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" "$@"'
    argv = ["/bin/sh", "-c", script, STILLUP, command, *words, "--runtime-dir", str(runtime)]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=DEADLINE, check=False)
