"""The text that says whom a rule is about: ``uid:1000``, ``gid:33``, ``user:alice`` or ``group:www-data``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from supervisor.core.access import OVERFLOW_UID
from supervisor.errors import UsageError

LARGEST: Final = 2**32 - 2
"""The largest uid and gid; the one above stands for none (credentials(7))."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A user or a group, by its number or by its name."""

    group: bool
    number: int | None = None
    name: str = ""


def parse_subject(text: str, option: str) -> Subject:
    """Read whom an option names.

    Raises:
        UsageError: it is nobody.
    """
    kind, _, rest = text.partition(":")
    group = kind in ("gid", "group")
    if kind in ("uid", "gid"):
        return Subject(group, number=check_number(parse_number(rest), text, option))
    if kind not in ("user", "group") or not rest or not rest.isprintable():
        raise UsageError(f"{option} {text}: it is uid:1000, gid:33, user:alice or group:www-data")
    return Subject(group, name=rest)


def parse_number(text: str) -> int | None:
    """The uid or gid that the digits say; None if they say none."""
    # int() itself refuses some thousands of digits.
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) and int(text) <= LARGEST else None


def check_number(number: int | None, text: str, option: str) -> int:
    """The number, if a rule can be about it.

    Raises:
        UsageError: it can not.
    """
    if number is None:
        raise UsageError(f"{option} {text}: a number is from 0 to {LARGEST}")
    if number == OVERFLOW_UID:
        raise UsageError(
            f"{option} {text}: {OVERFLOW_UID} is what the kernel shows for anybody whom this user namespace does not "
            "know; no rule can be about it"
        )
    return number
