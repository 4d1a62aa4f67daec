"""Reading the configuration again: which key comes to what, and what refuses the reload."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stillup.core.setting_changes import Effect, SettingChange
from stillup.core.states import RolloutState
from stillup.daemon.run_commands import run
from stillup.daemon.settings.config import make_settings
from stillup.daemon.settings.config_reader import REEXEC, RESTART, ConfigReader, Reading
from stillup.daemon.settings.options import parameters
from stillup.daemon.settings.run_parser import words_of
from stillup.errors import Refused

FIRST = 'app = "main:app"\nworkers = 2\n'


def done(_: int) -> RolloutState:
    return RolloutState.DONE


def aborted(_: int) -> RolloutState:
    return RolloutState.ABORTED


def waiting(_: int) -> RolloutState:
    return RolloutState.WAITING


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("STILLUP_", "UVICORN_", "WEB_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "stillup.toml").write_text(FIRST)
    return tmp_path


def start(*words: str) -> ConfigReader:
    """As ``run`` begins with these words."""
    context = run.make_context("run", list(words))
    return ConfigReader(context, words_of(context), make_settings(context, context.params))


def changed(folder: Path, text: str, *words: str, file: str = "stillup.toml") -> Reading:
    """What comes of a start whose file says something else then."""
    reader = start(*words)
    (folder / file).write_text(text)
    return reader.read()


def test_an_unchanged_file_changes_nothing(folder: Path) -> None:
    """Whoever could have written to it: what it says was believed at the start."""
    reader = start()
    (folder / "stillup.toml").chmod(0o666)
    reading = reader.read()
    assert reading.changes == ()
    assert reading.settings == reader.settings
    assert reading.configured(reader.settings).size is None


def test_what_a_reload_applies(folder: Path) -> None:
    """Release, health probe, deadlines, workers, uvicorn's options; what is not said any more is at its default."""
    before = start().settings
    text = 'app = "other:app"\nhealth-path = "/up"\nprobation = 5\ntimeout-keep-alive = 9\ndirectory = "next"\n'
    text += "workers = 3\n"
    (folder / "other.py").touch()
    reading = changed(folder, text)
    assert {change.key for change in reading.changes if change.effect is Effect.APPLIED} == {
        "app", "health-path", "probation", "timeout-keep-alive", "directory", "workers",
    }  # fmt: skip
    now = reading.settings
    assert (now.app, now.directory, now.workers) == ("other:app", str(folder / "next"), 3)
    assert (now.worker.health_path, now.policy.probation, now.options["timeout_keep_alive"]) == ("/up", 5.0, 9)
    assert reading.configured(before).size == 3
    (folder / "stillup.toml").write_text('app = "main:app"\n')
    reader = start()
    (folder / "stillup.toml").write_text(FIRST)
    reader.accepted(1, reader.read())
    reader.settle(done)
    assert reader.settings.workers == 2
    (folder / "stillup.toml").write_text('app = "main:app"\n')
    reading = reader.read()
    assert (reading.changes, reading.settings.workers) == ((SettingChange("workers", Effect.APPLIED),), 1)


@pytest.mark.usefixtures("folder")
def test_flags_and_variables_of_the_start_win(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is told all the same, with what it is overridden by."""
    monkeypatch.setenv("STILLUP_PROBATION", "7")
    reading = changed(folder, 'app = "x:y"\nworkers = 5\nprobation = 1\n', "main:app", "--workers", "4")
    assert set(reading.changes) == {
        SettingChange("app", Effect.OVERRIDDEN, "APP"),
        SettingChange("workers", Effect.OVERRIDDEN, "--workers"),
        SettingChange("probation", Effect.OVERRIDDEN, "STILLUP_PROBATION"),
    }
    assert (reading.settings.app, reading.settings.workers, reading.settings.policy.probation) == ("main:app", 4, 7.0)


def test_what_a_reload_never_changes(folder: Path) -> None:
    """Our own sockets, who may do what, the workers' user, the name, the log: each with what puts it into service."""
    text = FIRST + 'viewer = ["uid:5"]\nworker-user = "nobody"\nname = "other"\nlog-format = "json"\n'
    text += 'admin-bind = "127.0.0.1:1"\n'
    reader = start()
    (folder / "stillup.toml").write_text(text)
    reading = reader.read()
    assert {change.key: change.effect for change in reading.changes} == {
        "admin-bind": Effect.NEEDS_REEXEC,
        "viewer": Effect.NEEDS_REEXEC,
        "log-format": Effect.NEEDS_REEXEC,
        "worker-user": Effect.NEEDS_RESTART,
        "name": Effect.NEEDS_RESTART,
    }
    before = reader.settings
    now = reading.settings
    assert (now.binds, now.rights, now.name, now.log) == (before.binds, before.rights, before.name, before.log)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('app = "main:app"\nwrkers = 3\n', "stillup.toml, line 2: unknown key 'wrkers'; did you mean 'workers'?"),
        ('app = "main:app"\nworkers = "x"\n', r"Invalid value for '--workers'.*stillup.toml, line 2"),
        ('app = "main:app"\nbind = "x"\n', "stillup.toml, line 2: 'bind' is a list"),
        ('app = "main:app"\nworkers = 0\n', r"at least 1 worker.*stillup.toml, line 2"),
        ("app = \n", "stillup.toml"),
        ("workers = 1\n", "which app"),
    ],
)
def test_a_broken_file_refuses_the_reload(folder: Path, text: str, says: str) -> None:
    """With the key and its place; what runs is configured as before."""
    reader = start()
    (folder / "stillup.toml").write_text(text)
    with pytest.raises(Refused, match=says) as caught:
        reader.read()
    assert caught.value.code == "configuration"
    assert reader.settings.workers == 2
    (folder / "stillup.toml").write_text(FIRST)
    assert reader.read().changes == ()


def test_what_somebody_else_could_have_written_is_refused(folder: Path) -> None:
    """The file, or a level of its path: the message says which, and how that is mended."""
    reader = start()
    (folder / "stillup.toml").write_text(FIRST + "probation = 1\n")
    (folder / "stillup.toml").chmod(0o646)
    with pytest.raises(
        Refused, match=r"stillup.toml was changed, and is not read again.*mode 0646.*take that"
    ) as caught:
        reader.read()
    assert caught.value.code == "configuration"
    (folder / "stillup.toml").chmod(0o644)
    folder.chmod(0o777)
    try:
        with pytest.raises(Refused, match="others can write to"):
            reader.read()
    finally:
        folder.chmod(0o755)
    assert [change.key for change in reader.read().changes] == ["probation"]


def test_a_file_that_is_gone_stays_in_force(folder: Path) -> None:
    """A release may have been removed that the service was started in; and that is said."""
    reader = start()
    (folder / "stillup.toml").unlink()
    reading = reader.read()
    assert reading.changes == (SettingChange(str(folder / "stillup.toml"), Effect.FILE_GONE),)
    assert reading.settings == reader.settings


def test_without_a_file_none_is_looked_for(folder: Path) -> None:
    """One that comes later is not the start's."""
    (folder / "stillup.toml").unlink()
    assert changed(folder, "workers = 9\n", "main:app").changes == ()


def test_a_project_says_what_it_says_of_us(folder: Path) -> None:
    """Whatever else is changed in a pyproject.toml; if it says nothing any more, all is as without it."""
    (folder / "stillup.toml").unlink()
    (folder / "pyproject.toml").write_text("[tool.stillup]\nworkers = 2\n")
    reader = start("main:app")
    (folder / "pyproject.toml").write_text("[tool.other]\nx = 1\n[tool.stillup]\nworkers = 2\n")
    assert reader.read().changes == ()
    (folder / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert [change.key for change in reader.read().changes] == ["workers"]


def test_a_named_file_is_followed_anew(folder: Path) -> None:
    """Where it is in a release behind a symlink, each release may bring its own."""
    for number in (1, 2):
        (folder / f"{number}").mkdir()
        (folder / f"{number}" / "s.toml").write_text(f'app = "main:app"\nworkers = {number}\n')
    (folder / "current").symlink_to("1")
    reader = start("--config", "current/s.toml")
    (folder / "next").symlink_to("2")
    (folder / "next").rename(folder / "current")
    assert reader.read().settings.workers == 2


@pytest.mark.parametrize(
    ("state_of", "in_force"), [(done, 3), (lambda _: RolloutState.ROLLED_BACK, 3), (aborted, 2), (waiting, 2)]
)
def test_a_reading_is_in_force_with_its_rollout(
    folder: Path, state_of: Callable[[int], RolloutState], in_force: int
) -> None:
    """While that is under way, and if it is aborted, what was before is what the next reading is compared with."""
    reader = start()
    (folder / "stillup.toml").write_text('app = "main:app"\nworkers = 3\n')
    reader.accepted(7, reader.read())
    reader.settle(state_of)
    assert reader.settings.workers == in_force
    again = reader.read()
    assert [change.key for change in again.changes] == ([] if in_force == 3 else ["workers"])
    assert again.settings.workers == 3


def test_a_file_keeps_its_meaning_when_the_working_directory_is_gone(folder: Path) -> None:
    """Relative paths are those of the start."""
    release = folder / "release"
    release.mkdir()
    os.chdir(release)
    reader = start("main:app", "--config", str(folder / "stillup.toml"), "--directory", "..")
    release.rmdir()
    (folder / "stillup.toml").write_text(FIRST + "probation = 3\n")
    reading = reader.read()
    assert (reading.settings.directory, reading.settings.policy.probation) == (str(folder), 3.0)
    os.chdir(folder)


def test_the_lists_name_options() -> None:
    """What takes a re-exec or a restart is there, and in one list alone."""
    names = {parameter.name for parameter in parameters()}
    assert names >= REEXEC | RESTART
    assert not REEXEC & RESTART


def test_what_a_reload_makes_of_binds(folder: Path) -> None:
    """Each is listed; what is in force is what the next change is compared with, unless the rollout was aborted."""
    reader = start()
    (folder / "stillup.toml").write_text(FIRST + 'bind = ["127.0.0.1:8000", "127.0.0.1:8001"]\n')
    reading = reader.read()
    assert reading.changes == (SettingChange("bind", Effect.APPLIED, what="127.0.0.1:8001 added"),)
    reader.accepted(1, reading)
    reader.settle(aborted)
    assert [bind.name for bind in reader.settings.binds] == ["127.0.0.1:8000"]
    reader.accepted(2, reader.read())
    reader.settle(done)
    (folder / "stillup.toml").write_text(FIRST + "port = 8001\nhost = '127.0.0.1'\n")
    reading = reader.read()
    assert reading.changes == (SettingChange("bind", Effect.APPLIED, what="127.0.0.1:8000 removed"),)
    assert [bind.name for bind in reading.settings.binds] == ["127.0.0.1:8001"]
    (folder / "stillup.toml").write_text(FIRST + 'bind = ["127.0.0.1:8001", "127.0.0.1:8000"]\n')
    assert reader.read().changes == (SettingChange("bind", Effect.APPLIED),), "in another order they are the same"


def test_a_bind_of_the_start_overrides_the_files(folder: Path) -> None:
    """As any flag does."""
    reading = changed(folder, FIRST + 'bind = ["127.0.0.1:1"]\n', "--bind", "127.0.0.1:2")
    assert reading.changes == (SettingChange("bind", Effect.OVERRIDDEN, "--bind"),)
    assert [bind.name for bind in reading.settings.binds] == ["127.0.0.1:2"]


def test_who_is_believed_on_connections_of_a_socket_that_was_left_out(folder: Path) -> None:
    """They outlast it: its group stays known by its name, also to the next supervisor."""
    gid = os.getegid()
    (folder / "stillup.toml").write_text(FIRST + f'bind = ["w=unix:{folder}/s,group={gid}"]\n')
    reader = start()
    reader.remember({"v": 7, "w": 8})
    (folder / "stillup.toml").write_text(FIRST + f'bind = ["x=unix:{folder}/t,group={gid}"]\n')
    assert reader.read().settings.worker.proxy_gids == {"v": 7, "w": gid, "x": gid}
    (folder / "stillup.toml").write_text(FIRST + 'bind = ["x=unix:/t,group=no-such-group"]\n')
    with pytest.raises(Refused, match="no-such-group") as caught:
        reader.read()
    assert caught.value.code == "configuration"
