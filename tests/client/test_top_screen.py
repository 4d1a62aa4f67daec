"""The terminal of ``stillup top``: what is written to it, and what comes from it."""

from __future__ import annotations

import contextlib
import os
import termios
import threading
from collections.abc import Iterator

import pytest

from stillup.client.top import top_screen
from stillup.client.top.top_lines import line
from stillup.client.top.top_screen import Screen


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Our side of a terminal of 20 columns and 5 lines; the other side is stdin and stdout."""
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (5, 20))
    monkeypatch.setattr(top_screen, "STDIN", its)
    monkeypatch.setattr(top_screen, "STDOUT", its)
    yield ours
    os.close(its)
    os.close(ours)


def said(ours: int) -> str:
    """All that was written: a mark is written behind it."""
    os.write(top_screen.STDOUT, b"\0")
    text = b""
    while not text.endswith(b"\0"):
        text += os.read(ours, 65536)
    return text[:-1].decode()


def test_what_has_changed_is_written(ours: int) -> None:
    """A line that is as it was is not, and what is left of a longer frame is erased."""
    with Screen(colours=True) as screen:
        said(ours)
        lines = [line(20, "one"), line(20, ("two", "red"), " is red"), line(20, "x" * 20)]
        screen.draw(lines)
        assert said(ours) == f"\x1b[1;1Hone\x1b[K\x1b[2;1H\x1b[31mtwo\x1b[0m is red\x1b[K\x1b[3;1H{'x' * 20}"
        screen.draw(lines)
        assert said(ours) == ""
        screen.draw([lines[0], line(20, "2")])
        assert said(ours) == "\x1b[2;1H2\x1b[K\x1b[3;1H\x1b[J"
        screen.draw([lines[0]] * 9)
        assert said(ours).count("one") == 4, "there are five lines, and one of them was there"


def test_the_terminal_is_as_it_was(ours: int) -> None:
    """Its modes, the screen, the cursor; whatever ends it."""
    before = termios.tcgetattr(top_screen.STDIN)
    with contextlib.suppress(ZeroDivisionError), Screen(colours=False):
        assert said(ours).startswith("\x1b[?1049h\x1b[?25l")
        assert termios.tcgetattr(top_screen.STDIN) != before
        raise ZeroDivisionError
    assert said(ours).endswith("\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(top_screen.STDIN) == before


def test_keys(ours: int) -> None:
    """Characters; what an arrow or a function key sends is none. Another thread ends the wait."""
    with Screen(colours=False) as screen:
        os.write(ours, b"\x1b[A\x1bOP\x1b[1;5Cr\x1b[24~+\xc3\xa9")
        assert screen.wait(20) == "r+"
        threading.Timer(0.01, screen.wake).start()
        assert screen.wait(20) == ""
        assert not screen.is_over


def test_no_keys_where_stdin_is_no_terminal(ours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is drawn all the same, and its modes are left alone."""
    reading, writing = os.pipe()
    monkeypatch.setattr(top_screen, "STDIN", reading)
    try:
        with Screen(colours=False) as screen:
            assert not screen.has_keys
            os.write(writing, b"q")
            assert screen.wait(0) == ""
            screen.draw([line(20, "drawn")])
        assert "drawn" in said(ours)
    finally:
        os.close(reading)
        os.close(writing)
