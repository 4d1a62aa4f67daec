"""Beside supervisord, whose distribution owns the name ``supervisor``; and with apps that use that name themselves."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import APP, FULL, ROOT, Service

OWN = "from supervisor import own\nassert own() == 'mine'\n" + APP


def _pip(*words: str) -> str:
    """Run pip; why it failed, or nothing."""
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    return done.stderr if done.returncode else ""


class Environment:
    """A virtual environment that has what this one has, but for what is installed into it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._python = str(folder / "bin" / "python")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], timeout=60, check=True)
        (packages,) = (folder / "lib").glob("python*/site-packages")
        # A path in a .pth file is searched last, and its .pth files are not read: no editable stillup.
        (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))

    def install(self, *distributions: str) -> None:
        # Also what the environment with the dependencies has, as it has stillup itself when a wheel is tested.
        for distribution in distributions:
            assert not _pip("--python", self._python, "install", "--no-deps", "--ignore-installed", distribution)

    def uninstall(self, *distributions: str) -> None:
        for distribution in distributions:
            assert not _pip("--python", self._python, "uninstall", "--yes", distribution)

    def runs_stillup(self, folder: Path) -> None:
        """`stillup run` of this environment serves, from its own files."""
        service = Service(folder)
        service.argv[0] = str(self._folder / "bin" / "stillup")
        service.write("import stillup\n" + APP.replace("VERSION", "{stillup.__file__}"))
        with service:
            assert service.get().split()[2].startswith(str(self._folder))
            assert service.cli("reload").returncode == 0

    def runs_supervisord(self) -> None:
        argv = [str(self._folder / "bin" / "supervisord"), "--version"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def wheels(tmp_path: Path) -> tuple[str, str]:
    """Stillup's wheel, the one that is tested if there is one, and supervisord's."""
    folder = tmp_path / "wheels"
    if why := _pip("download", "--no-deps", "--dest", str(folder), "supervisor"):
        pytest.skip(f"supervisord's distribution is not to be had: {why}")
    (supervisord,) = map(str, folder.iterdir())
    if given := os.environ.get("WHEEL"):
        return given, supervisord
    if why := _pip("wheel", "--no-deps", "--wheel-dir", str(tmp_path / "stillup"), str(ROOT)):
        pytest.skip(f"no wheel can be built here: {why}")
    (stillup,) = map(str, (tmp_path / "stillup").iterdir())
    return stillup, supervisord


@pytest.mark.skipif(not FULL, reason="takes 20 s: make prove-install")
def test_beside_supervisord(tmp_path: Path, wheels: tuple[str, str]) -> None:
    """In one environment, whichever was installed first, both run; and stillup does after supervisord has left."""
    stillup, supervisord = wheels
    environment = Environment(tmp_path / "environment")
    for number, order in enumerate(((stillup, supervisord), (supervisord, stillup))):
        folder = tmp_path / str(number)
        for part in ("both", "alone"):
            (folder / part).mkdir(parents=True)
        environment.install(*order)
        environment.runs_stillup(folder / "both")
        environment.runs_supervisord()
        environment.uninstall("supervisor")
        environment.runs_stillup(folder / "alone")
        environment.uninstall("stillup")


def test_an_app_with_a_supervisor_of_its_own(tmp_path: Path) -> None:
    """What an app calls ``supervisor`` is found by it, beside its module as in ``--app-dir``, also after a reload.

    Whether that is a module or a package.
    """
    app = tmp_path / "app"
    for folder, options in ((app, ()), (tmp_path / "elsewhere", ("--app-dir", str(app)))):
        folder.mkdir()
        service = Service(folder, "main:app", *options)
        (app / "supervisor.py").write_text("def own(): return 'mine'\n")
        (app / "main.py").write_text(OWN)
        with service:
            assert service.get().startswith("1 ")
            (app / "supervisor.py").unlink()
            (app / "supervisor").mkdir()
            (app / "supervisor" / "__init__.py").write_text("def own(): return 'mine'\n")
            service.client.reload(wait="drained")
            assert service.get().startswith("2 ")
        shutil.rmtree(app / "supervisor")
