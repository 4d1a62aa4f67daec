"""Which programs are run around a rollout, as the configuration file says it, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stillup.core.hook_settings import Hooks
from stillup.core.setting_changes import Effect, SettingChange
from stillup.daemon.run_commands import check, run
from stillup.daemon.settings.config import make_settings
from stillup.daemon.settings.config_reader import ConfigReader
from stillup.daemon.settings.run_parser import words_of

APP = 'app = "main:app"\n'
HOOKS = '[hooks]\nbefore = ["python", "manage.py", "migrate"]\nafter = ["tell"]\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("STILLUP_", "UVICORN_", "WEB_"))]:
        monkeypatch.delenv(name)
    return tmp_path


def start() -> ConfigReader:
    context = run.make_context("run", [])
    return ConfigReader(context, words_of(context), make_settings(context, context.params))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stillup.toml", APP + HOOKS),
        ("stillup.toml", APP + 'hooks = {before = ["python", "manage.py", "migrate"], after = ["tell"]}'),
        ("pyproject.toml", f"[tool.stillup]\n{APP}{HOOKS.replace('[hooks]', '[tool.stillup.hooks]')}"),
    ],
    ids=["table", "inline", "project"],
)
def test_they_stand_in_the_file(folder: Path, name: str, text: str) -> None:
    """In a table of it, with 600 s each unless it says otherwise."""
    (folder / name).write_text(text)
    policy = start().settings.policy
    assert policy.hooks == Hooks(("python", "manage.py", "migrate"), ("tell",))
    assert policy.hook_timeout == 600


def test_there_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the file says so: a variable is passed over, a flag is refused."""
    (folder / "stillup.toml").write_text(APP)
    monkeypatch.setenv("STILLUP_HOOKS", "touch x")
    assert start().settings.policy.hooks == Hooks()
    refused = CliRunner().invoke(check, ["--hooks", "touch x"])
    assert (refused.exit_code, "No such option" in refused.output) == (2, True)
    assert "--hooks" not in CliRunner().invoke(run, ["--help"]).output


def test_a_reload_reads_them_again(folder: Path) -> None:
    """As a key like any other: it is listed, and in force with the rollout."""
    (folder / "stillup.toml").write_text(APP)
    reader = start()
    (folder / "stillup.toml").write_text(f"hook-timeout = 5\n{APP}{HOOKS}")
    reading = reader.read()
    assert set(reading.changes) == {SettingChange(key, Effect.APPLIED) for key in ("hooks", "hook-timeout")}
    configured = reading.configured(reader.settings)
    assert configured.policy.hooks.after == ("tell",)
    assert configured.policy.hook_timeout == 5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('hooks = "touch x"', "line 2: 'hooks' is a table: [hooks]"),
        ('hooks = ["touch", "x"]', "line 2: 'hooks' is a table: [hooks]"),
        ('[hooks]\nbefore = "python manage.py migrate"', "line 2: 'before' is a program and its arguments, a list"),
        ("[hooks]\nbefore = []", "line 2: 'before' is a program and its arguments"),
        ('[hooks]\nafter = ["tell", 3]', "line 2: 'after' is a program and its arguments"),
        ('[hooks]\nafter = [""]', "line 2: 'after' names no program"),
        ('[hooks]\nafter = ["a\\u0000b"]', "line 2: 'after' names no program"),
        ('[hooks]\nbefor = ["tell"]', "line 2: [hooks] has no 'befor', but before and after"),
        ("[hooks]\ntimeout = 3", "[hooks] has no 'timeout', but before and after; --hook-timeout is a key of its own"),
        ("hook-timeout = 0", "hook-timeout"),
    ],
)
def test_what_means_nothing(folder: Path, text: str, why: str) -> None:
    """It is refused with its place and the way out."""
    (folder / "stillup.toml").write_text(APP + text)
    with pytest.raises(click.UsageError) as caught:
        run.make_context("run", [])
    assert why in caught.value.format_message()
