"""Text that somebody else has chosen, made fit for a terminal or a log: controls are shown, and not sent.

An exception, a path, the output of an app or a caller's argument may hold anything: ESC and what follows it, C1
controls (U+009B is CSI to a terminal in UTF-8), a line's end that begins a line of its own, marks that turn the
direction of writing around, half a surrogate. Whatever Unicode does not call printable is written as Python's own
escapes.
"""

from __future__ import annotations

import re
from typing import Final

_HIGHEST_BMP: Final = 0xFFFF
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7e]")


def escaped(text: str) -> str:
    """The text as one line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _shown(char) for char in text)


def escaped_lines(text: str) -> str:
    """The same of a text that may have several lines: their ends stay, tabs become blanks."""
    return "\n".join(escaped(line.expandtabs()) for line in text.split("\n"))


def quoted(message: str) -> list[str]:
    """A message as lines, of which those after the first can be told from any other line: the output of a trial."""
    first, *more = message.splitlines() or [""]
    return [escaped(first), *(escaped(f"  | {line.expandtabs()}") for line in more)]


def escaped_json(text: str) -> str:
    """JSON that means the same: an encoder escapes C0 controls, and leaves DEL, C1 and the others as they are."""
    return _BEYOND_ASCII.sub(_json_shown, text)


def _shown(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_shown(match: re.Match[str]) -> str:
    char = match[0]
    if char.isprintable():
        return char
    number = ord(char)
    if number <= _HIGHEST_BMP:
        return f"\\u{number:04x}"
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
