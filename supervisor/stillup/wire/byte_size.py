"""Sizes of memory as people write them: ``536870912``, ``512M``, ``1.5G``."""

from __future__ import annotations

import re
from typing import Final

from stillup.errors import UsageError

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MOST: Final = 1 << 50
"""Bytes; a pebibyte is no limit to anything."""


def parse_size(text: str) -> int:
    """Bytes of a size: a number, with K, M or G for its 1024, 1024^2 or 1024^3 bytes.

    Raises:
        UsageError: it is no such thing, less than a byte, or more than a machine has.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)([KMG]?)", text.strip().upper())
    if match is None:
        raise UsageError(f"'{text}' is no size: write bytes, or a number with K, M or G, such as 512M")
    size = int(float(match[1]) * _UNITS[match[2]])
    if not 1 <= size <= MOST:
        raise UsageError(f"'{text}' is no size that memory can have")
    return size


def parse_percentage(text: str) -> int | None:
    """``80%`` as 80; None for what is no percentage of something."""
    match = re.fullmatch(r"([1-9][0-9]?|100)%", text.strip())
    return int(match[1]) if match is not None else None


def show_size(size: int) -> str:
    """A size for people to read, in units of 1024: ``530 MB``."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        # A size is shown in the largest unit of which it has ten: two digits tell it from the limit that it is past.
        if size >= 10 * unit:
            return f"{size // unit} {name}"
    return f"{size} bytes"
