"""Lines of a fixed width: parts of text, each with its style, cut where the terminal ends.

Whatever others have chosen is escaped here, where its width is measured: an escape takes more cells than its control.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from stillup.wire.plain_text import escaped

Styled: TypeAlias = tuple[str, str]
"""A text, and its style: words of CODES with blanks between them, or nothing."""
Line: TypeAlias = tuple[Styled, ...]
"""Parts without controls, no wider together than the terminal is."""
CODES: Final = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bold": "1",
    "dim": "2",
    "reverse": "7",
}
"""The codes of styles (ECMA-48, 8.3.117)."""
_COLOURS: Final = frozenset({"red", "green", "yellow", "blue", "magenta", "cyan"})
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIB: Final = 1024


def cells(text: str) -> int:
    """The columns that a text takes, which has no controls."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - for wide characters alone

    return cell_len(text)


def cut(text: str, width: int) -> str:
    """As much of a text as so many columns have room for; a ``>`` stands for what has none."""
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    if text.isascii():
        return f"{text[: width - 1]}>"
    from rich.cells import set_cell_size  # noqa: PLC0415 - as above

    return f"{set_cell_size(text, width - 1)}>"


def column(text: str, width: int) -> str:
    """A text of others in so many columns, from the left."""
    shown = cut(escaped(text), width)
    return shown + " " * (width - cells(shown))


def line(width: int, *parts: str | Styled) -> Line:
    """A line of these parts, each escaped, cut to so many columns."""
    made: list[Styled] = []
    left = width
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        text = cut(escaped(text), left)
        if text:
            made.append((text, style))
            left -= cells(text)
        if left <= 0:
            break
    return tuple(made)


def wrapped(width: int, text: str, style: str, most: int, indent: int = 0) -> list[Line]:
    """A text of others as at most so many lines, broken at blanks; those after the first begin in column ``indent``."""
    rest = escaped(text)
    made: list[Line] = []
    while rest and len(made) < most - 1 and cells(rest) > width:
        fits = len(rest[:width])
        while cells(rest[:fits]) > width:
            fits -= 1
        blank = rest.rfind(" ", indent + 1, fits + 1)
        fits = blank if blank > 0 else max(1, fits)
        made.append(line(width, (rest[:fits], style)))
        rest = f"{' ' * indent}{rest[fits:].lstrip()}"
    return [*made, line(width, (rest, style))]


def plain(shown: Line) -> str:
    """A line without its styles."""
    return "".join(text for text, _ in shown).rstrip()


def painted(shown: Line, *, colours: bool) -> str:
    """A line with its styles as a terminal is told them; without colours what is left of those: bold, dim, reverse."""
    made = []
    for text, style in shown:
        codes = [CODES[word] for word in style.split() if colours or word not in _COLOURS]
        made.append(f"\x1b[{';'.join(codes)}m{escaped(text)}\x1b[0m" if codes else escaped(text))
    return "".join(made)


def total_width(parts: Iterable[Styled]) -> int:
    """The columns that these take."""
    return sum(cells(text) for text, _ in parts)


def duration(seconds: float) -> str:
    """Such as ``4 s``, ``3m07s``, ``2h05m`` or ``12d 4h``."""
    whole = int(max(0.0, seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"


def size(count: int) -> str:
    """Bytes in at most five characters, in units of 1024: ``812K``, ``45M``, ``1.2G``; ``-`` if that is not known."""
    if count <= 0:
        return "-"
    number = count / _KIB
    for unit in "KMGT":
        if number < 10 and unit != "K":  # noqa: PLR2004 - a figure behind the point, where there is room for it
            return f"{number:.1f}{unit}"
        if number < _KIB:
            return f"{number:.0f}{unit}"
        number /= _KIB
    return f"{number:.0f}P"


def count(number: float) -> str:
    """A number in at most six characters: ``0.4``, ``317``, ``12.3k``."""
    if number < 100:  # noqa: PLR2004 - as above
        return f"{number:.1f}"
    for unit in ("", "k", "M"):
        if number < 10_000:  # noqa: PLR2004 - four figures are read at once
            return f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.0f}G"
