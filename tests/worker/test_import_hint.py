"""A module that is missing since stillup is in another environment than the app: what to do is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stillup.worker.import_hint import import_hint

MISSING = ModuleNotFoundError("No module named 'fastapi'")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The app's directory, which workers are in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    return tmp_path


def environment(place: Path) -> str:
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    return str(place)


@pytest.mark.parametrize("place", ["pipx/venvs/stillup", "share/uv/tools/stillup"])
def test_pipx_and_uv_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Their environments hold stillup alone: the app's interpreter is to be named."""
    monkeypatch.setattr(sys, "prefix", environment(folder / place))
    hint = import_hint(MISSING)
    assert f"stillup is in an environment of its own, {folder / place}: --python .venv/bin/python" in hint
    environment(folder / ".venv")
    assert import_hint(MISSING) == (
        " (its packages may be those of .venv/bin/python: --python .venv/bin/python; it needs stillup, too)"
    )


def test_an_environment_that_is_active(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the shell has activated comes first."""
    active = environment(folder / "elsewhere")
    monkeypatch.setenv("VIRTUAL_ENV", active)
    assert f"--python {active}/bin/python" in import_hint(MISSING)


def test_where_it_is_our_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is missing from the very environment is just missing; so is one where there is no other."""
    assert import_hint(MISSING) == ""
    monkeypatch.setattr(sys, "prefix", environment(folder / ".venv"))
    assert import_hint(MISSING) == ""
    assert import_hint(ValueError("x")) == ""
