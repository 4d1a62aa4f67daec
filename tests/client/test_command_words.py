"""A word that is no command: what is likely meant is said."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from stillup.__main__ import _COMMANDS, _OTHER_WORDS, main


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["reloda"], "No such command 'reloda'. Did you mean 'reload'?"),
        (["stauts", "--json"], "Did you mean 'status'?"),
        (["restart"], "Did you mean 'reload'?"),
        (["systemd", "instal"], "Did you mean 'install'?"),
        (["supervisor", "rexec"], "Did you mean 'reexec'?"),
        (["main:app", "--workers", "2"], "'stillup run main:app' serves an app."),
        (["main.py"], "'stillup run main.py' serves an app."),
    ],
)
def test_a_slip_is_answered_with_what_is_meant(words: list[str], says: str) -> None:
    """A slip, another tool's word, or an app without a command; exit 2."""
    shown = CliRunner().invoke(main, words)
    assert (shown.exit_code, says in shown.output) == (2, True), shown.output


def test_what_nobody_can_guess() -> None:
    """Nothing is suggested."""
    shown = CliRunner().invoke(main, ["frobnicate"])
    assert shown.output.endswith("Error: No such command 'frobnicate'.\n")


def test_other_tools_words_lead_to_commands_that_are_there() -> None:
    """And none of them is a command of ours."""
    assert {there.split()[0] for there in _OTHER_WORDS.values()} <= set(_COMMANDS)
    assert not set(_OTHER_WORDS) & set(_COMMANDS)


@pytest.mark.parametrize("words", [[], ["run"], ["status"], ["supervisor", "reexec"]], ids=" ".join)
def test_h_is_help(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As gunicorn has it."""
    if command := main.get_command(click.Context(main), words[0]) if words else None:
        # click keeps what the option was called when the command was invoked by itself.
        monkeypatch.setattr(command, "_help_option", None, raising=False)
    shown = CliRunner().invoke(main, [*words, "-h"])
    assert (shown.exit_code, shown.output.startswith("Usage: ")) == (0, True)
