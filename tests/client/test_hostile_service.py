"""What a command prints is shown on a terminal, whatever the service, its files or the command's arguments say.

Every command is run against a supervisor all of whose texts are attacks. No control reaches the terminal, no line is
the attacker's own, and ``--json`` is JSON that means what was said.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from stillup.__main__ import main
from stillup.client import orphans, service_commands
from stillup.core.states import CALLED_OFF
from tests.client.hostile_supervisor import ATTACK, hostile_supervisor

FALSE_LINE = "ok  gen 9 serving"
OURS = re.compile(r"\x1b\[(0|1|31|32|33|36)m")
"""The colours that we use; those of ATTACK are others."""
OUTCOMES: list[dict[str, Any]] = [
    {"outcome": "succeeded", "state": "done", "reason": ""},
    {"outcome": "aborted", "state": "aborted", "failure": None},
    {"outcome": "aborted", "state": "aborted", "reason": CALLED_OFF},
    {"outcome": "aborted", "state": "aborted"},
    {"outcome": "rolled-back", "state": "rolled-back"},
    {"outcome": "succeeded", "state": "draining"},
]
WATCHING = [["reload"], ["reload", "--json"], ["rollback"], ["promote"], ["scale", "3"], ["scale", "3", "--json"]]
LOOKING = [
    ["status"],
    ["status", "--json"],
    ["reload", "--wait", "none"],
    ["reload", "--wait", "none", "--json"],
    ["history"],
    ["history", "--json"],
    ["abort"],
    ["abort", "--json"],
    ["events"],
    ["events", "--json"],
    ["whoami"],
    ["whoami", "--json"],
    ["trace"],
    ["trace", "--json"],
    ["doctor"],
    ["doctor", "--json"],
    ["ls"],
    ["ls", "--json"],
    ["supervisor", "reexec"],
    ["stop"],
    ["cordon"],
    ["cordon", "--json"],
    ["uncordon"],
    ["uncordon", "--json"],
    ["health"],
    ["top", "--once"],
]
ELSEWHERE = {"run", "check", "systemd", "init", "migrate", "completion", "dial-stdio", "dashboard"}
"""Those that ask no supervisor: each has a test of its own, here or in its own file."""


def _leaves(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, *before, name)
        else:
            yield (*before, name)


def test_no_command_is_left_out() -> None:
    """Each command of ``stillup`` is run here."""
    run = [tuple(words) for words in (*WATCHING, *LOOKING)]
    leaves = (leaf for leaf in _leaves(main) if leaf[0] not in ELSEWHERE)
    assert [leaf for leaf in leaves if not any(one[: len(leaf)] == leaf for one in run)] == []


def _is_harmless(output: str) -> None:
    """No control but the ends of lines and our own colours, and no line that the attacker has begun."""
    text = OURS.sub("", output)
    wrong = {char for char in text if not char.isprintable() and char != "\n"}
    assert wrong == set(), ascii(text)
    assert not any(line.startswith(FALSE_LINE) for line in text.split("\n")), text


def _run(monkeypatch: pytest.MonkeyPatch, directory: Path, words: list[str], **environment: str) -> str:
    monkeypatch.setattr(service_commands, "candidates", lambda: [str(directory)])
    extra = [] if words[0] == "ls" else ["--runtime-dir", str(directory)]
    done = CliRunner(env={"FORCE_COLOR": None, "TTY_COMPATIBLE": None, **environment}).invoke(main, [*words, *extra])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
@pytest.mark.parametrize("colour", [{}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}], ids=["plain", "colour"])
def test_answers_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], colour: dict[str, str]
) -> None:
    """Whatever stands in an answer, a terminal is told nothing."""
    with hostile_supervisor(tmp_path):
        output = _run(monkeypatch, tmp_path, words, **colour)
    _is_harmless(output)
    if words[0] not in ("stop", "reload", "abort"):
        assert "52;c" in output  # it was said, and is shown


@pytest.mark.parametrize("words", WATCHING, ids=" ".join)
@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda one: f"{one['outcome']}-{one['state']}")
def test_what_is_watched_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], outcome: dict[str, Any]
) -> None:
    """A rollout and a scaling, however they end: the app's message, the tail of its output, names of releases."""
    with hostile_supervisor(tmp_path, outcome):
        _is_harmless(_run(monkeypatch, tmp_path, words))


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["status"], "status"),
        (["status", "--json"], "status"),
        (["reload"], "reload"),
        (["doctor"], "status"),
        (["ls"], "status"),
        (["stop"], "stop"),
        (["events"], "events"),
    ],
)
def test_problems_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], refused: str) -> None:
    """The detail of a problem, and where it says that help is."""
    with hostile_supervisor(tmp_path, refuses=refused):
        output = _run(monkeypatch, tmp_path, words)
    _is_harmless(output)
    assert "52;c" in output


@pytest.mark.parametrize("words", [words for words in LOOKING if words[-1] == "--json"], ids=" ".join)
def test_json_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Each line, or the whole, decodes; and the attack is in it as it was said."""
    with hostile_supervisor(tmp_path):
        output = _run(monkeypatch, tmp_path, words)
    if words[0] in ("events", "trace"):
        said: list[Any] = [json.loads(line) for line in output.split("\n") if line.startswith("{")]
    else:
        said = [json.loads(output)]
    assert _has(said, ATTACK)


def _has(value: Any, text: str) -> bool:
    match value:
        case str():
            return text in value
        case dict():
            return any(_has(inner, text) for pair in value.items() for inner in pair)
        case list():
            return any(_has(inner, text) for inner in value)
        case _:
            return False


@pytest.mark.parametrize("words", [*WATCHING, *LOOKING], ids=" ".join)
def test_places_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """A directory may be called anything, and have a supervisor or none."""
    place = tmp_path / ATTACK.replace("/", "").replace("\0", "").replace("\r\n", "\n")
    if words[0] != "ls":
        _is_harmless(_run(monkeypatch, place, words))
    if len(str(place).encode()) < 100:
        with hostile_supervisor(place):
            _is_harmless(_run(monkeypatch, place, words))
    monkeypatch.setattr(orphans, "orphans", lambda _: (_ for _ in ()))


@pytest.mark.parametrize(
    "words",
    [
        [f"x{ATTACK}"],  # click before 8.2 shows its help where a command begins with neither letter nor digit
        [f"--{ATTACK}"],
        ["status", ATTACK],
        ["status", f"--{ATTACK}"],
        ["status", "--name", ATTACK],
        ["scale", ATTACK],
        ["reload", "--wait", ATTACK],
        ["supervisor", f"x{ATTACK}"],
        ["systemd", "show", "--run-as", ATTACK],
        ["systemd", "install", "--run-as", ATTACK],
        ["run", "x:y", "--bind", ATTACK],
        ["run", "x:y", f"--{ATTACK}"],
        ["run", "x:y", "--name", ATTACK],
        ["check", ATTACK],
        ["check", "x:y", "--env-file", ATTACK],
        ["check", "x:y", "--directory", ATTACK],
        ["check", "x:y", "--worker-user", ATTACK],
    ],
    ids=lambda words: "-".join(word.partition(chr(27))[0] for word in words) or "command",
)
def test_arguments_are_shown(words: list[str]) -> None:
    """What was said wrongly is named in the message; somebody else may have chosen it, such as a script's input."""
    done = subprocess.run(
        [sys.executable, "-m", "stillup", *(word.replace("\0", "") for word in words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    output = done.stdout + done.stderr
    wrong = {char for char in output if not char.isprintable() and char != "\n"}
    assert wrong == set(), ascii(output)
    assert "52;c" in output or words[0] == "check"


APP = """
import sys
ATTACK = {attack!r}
class Odd(Exception): pass
Odd.__name__ = Odd.__qualname__ = ATTACK
raise Odd(ATTACK)
"""


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_app_that_fails_is_shown(tmp_path: Path, command: str) -> None:
    """The class and the text of its exception, on the terminal of who tries it out and in the supervisor's log."""
    (tmp_path / "odd.py").write_text(APP.format(attack=ATTACK.replace("\0", "")), encoding="utf-8")
    place = [] if command == "check" else ["--runtime-dir", str(tmp_path / "run"), "--bind", "127.0.0.1:0"]
    done = subprocess.run(
        [sys.executable, "-m", "stillup", command, "odd:app", *place],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    _is_harmless(done.stdout + done.stderr)
    assert "52;c" in done.stdout + done.stderr


def test_one_place_writes() -> None:
    """Whatever a command prints goes through ``plain_output``: no other file of the client writes to a terminal."""
    package = Path(service_commands.__file__).parent
    wrong = re.compile(r"click\.(?:echo|secho)\(|\bprint\(|sys\.std(?:out|err)\b|^(?:from|import) rich\b", re.MULTILINE)
    files = [file for file in package.rglob("*.py") if file.name not in ("plain_output.py", "__init__.py")]
    assert [file.name for file in files if wrong.search(file.read_text(encoding="utf-8"))] == []
