"""A working directory that is deleted under the supervisor."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.system.harness import STILLUP, Service


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
        assert service.reload().returncode == 0
        assert service.get().endswith("v2")


def test_a_directory_that_is_alive(tmp_path: Path) -> None:
    """With a --directory of its own a service reloads although the one that it was started in is gone."""
    app, start = tmp_path / "app", tmp_path / "start"
    app.mkdir()
    start.mkdir()
    service = Service(tmp_path, "main:app", "--directory", str(app))
    service.popen = {"cwd": start}
    service.write(name="app/main.py")
    with service:
        start.rmdir()
        service.write(name="app/main.py", version="v2")
        assert service.reload().returncode == 0
        assert service.get().endswith("v2")


def test_a_start_where_nothing_is(tmp_path: Path) -> None:
    """Started in a directory that has been deleted, `run` says so, and `status` still finds its supervisor."""
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" "$@"'
    run = ["/bin/sh", "-c", script, STILLUP, "run", "main:app", "--runtime-dir", str(tmp_path / "rt")]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2, done
    assert "the working directory is gone" in done.stderr
    assert "Traceback" not in done.stderr
    service = Service(tmp_path)
    service.write()
    with service:
        status = ["/bin/sh", "-c", script, STILLUP, "status", "--runtime-dir", str(service.runtime)]
        done = subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
