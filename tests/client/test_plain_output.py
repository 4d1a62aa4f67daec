"""What commands print, on a terminal and in a pipe."""

from __future__ import annotations

import re

import pytest

from stillup.client.plain_output import Part, Printer

LINES: tuple[tuple[Part, ...], ...] = (
    ("web  ", ("serving", "green"), "   pid 7"),
    ("",),
    (("waits", "yellow"),),
    ("[bold]no markup[/bold] :smile: 1.5 /srv/web",),
    ("wide 漢字, \x1b[31m, \t tab\r\n and an end ", ("\x9b", "red")),
    ("long " * 60 + "end",),  # rich before 14.3 cuts a blank at the end
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_a_pipe_gets_what_a_terminal_shows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text, to the byte, but for the colours."""
    shown = {}
    for forced in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", forced)
        out = Printer()
        for parts in LINES:
            out.line(*parts)
        shown[forced] = capsys.readouterr().out
    assert COLOUR.search(shown[""]) is None
    assert COLOUR.search(shown["1"]) is not None
    assert COLOUR.sub("", shown["1"]) == shown[""]


def test_nowhere_to_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose stdout is closed (``>&-``) prints nothing, and does what it is to do."""
    monkeypatch.setattr("sys.stdout", None)
    Printer().line("web  ", ("serving", "green"))
