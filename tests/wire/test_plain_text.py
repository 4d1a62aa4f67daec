"""Text of others on a terminal: what is not printable is shown as an escape, and JSON stays what it was."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.wire.plain_text import escaped, escaped_json, escaped_lines, quoted

ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_a_line_is_printable(text: str) -> None:
    """Whatever the text, what is shown is one line without controls, and can be written as UTF-8."""
    shown = escaped(text)
    assert shown.isprintable()
    shown.encode()


@given(ANY)
def test_printable_text_stays(text: str) -> None:
    """Nothing else is changed."""
    if text.isprintable():
        assert escaped(text) == text


@given(ANY)
def test_lines_stay_lines(text: str) -> None:
    """As many lines as there were, each of them printable."""
    lines = escaped_lines(text).split("\n")
    assert len(lines) == text.count("\n") + 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x7f", "\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("Grüße, 世界", "Grüße, 世界"),
    ],
)
def test_how_it_is_shown(text: str, shown: str) -> None:
    """ESC, CSI, a line's end, DEL, a mark of direction, half a surrogate, a tag; and text that is none of these."""
    assert escaped(text) == shown


@given(ANY)
def test_a_message_begins_no_line_but_its_own(text: str) -> None:
    """Of its lines only the first begins as it wants to."""
    first, *more = quoted(text)
    assert first.isprintable()
    assert all(line.isprintable() and line.startswith("  | ") for line in more)


@given(st.text())
def test_json_means_the_same(text: str) -> None:
    """No control is left in it but those that are its own layout, and it decodes to what it was made of."""
    shown = escaped_json(msgspec.json.encode([text]).decode())
    assert shown.isprintable()
    assert json.loads(shown) == [text]
    assert msgspec.json.decode(shown.encode()) == [text]
