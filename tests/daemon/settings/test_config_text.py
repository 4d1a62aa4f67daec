"""What a configuration file may hold: whatever it is, a start says what is wrong in a line."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from stillup.daemon.run_commands import check
from stillup.daemon.settings import config
from stillup.errors import UsageError


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    """Brackets without end take the whole stack: what another test has left is not to be finalized at its bottom."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("stillup.toml", "workers = {}", "line 1: 'workers' cannot be"),
        ("stillup.toml", "port = 1\nworkers = [1]", "line 2: 'workers' cannot be"),
        ("stillup.toml", "workers = 2026-01-01", "'workers' cannot be 2026-01-01"),
        ("stillup.toml", "bind = [[1]]", "'bind' cannot be"),
        ("stillup.toml", f"a = {'[' * 20_000}", "stillup.toml: "),
        ("pyproject.toml", "tool.stillup = 3", "is a table of settings, not '3'"),
    ],
)
def test_what_means_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, why: str) -> None:
    """Values of no type that an option has, tables that are none, brackets without end."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=why):
        config.load_file(click.Context(check), None)


def test_a_project_without_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program has in pyproject.toml is none of ours."""
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("tool = 3", encoding="utf-8")
    context = click.Context(check)
    config.load_file(context, None)
    assert context.default_map == {}


def test_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts, numbers, yes and no, and lists of them where an option may be given several times."""
    monkeypatch.chdir(tmp_path)
    Path("stillup.toml").write_text('bind = ["a:1", "b:2"]\nworkers = 2\ndrain-timeout = 1.5\nreload = true\n')
    context = click.Context(check)
    config.load_file(context, None)
    assert context.default_map == {"binds": ["a:1", "b:2"], "workers": 2, "drain_timeout": 1.5, "reload": True}
