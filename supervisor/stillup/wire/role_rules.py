"""The user or group that gets a role, as text: ``uid:1000``, ``gid:33``, ``user:alice`` or ``group:www-data``."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from stillup.core.access import OVERFLOW_UID
from stillup.errors import UsageError

LARGEST: Final = 2**32 - 2
"""The largest uid and gid; the one above stands for none (credentials(7))."""


class UserOrGroup(msgspec.Struct, frozen=True):
    """A user or a group, by its number or by its name."""

    group: bool
    number: int | None = None
    name: str = ""


def parse_user_or_group(text: str, option: str) -> UserOrGroup:
    """Read which user or group an option names.

    Raises:
        UsageError: it names none.
    """
    kind, _, rest = text.partition(":")
    group = kind in ("gid", "group")
    if kind in ("uid", "gid"):
        return UserOrGroup(group, number=check_number(parse_number(rest), text, option))
    if kind not in ("user", "group") or not rest or not rest.isprintable():
        raise UsageError(f"{option} {text}: it is uid:1000, gid:33, user:alice or group:www-data")
    return UserOrGroup(group, name=rest)


def parse_number(text: str) -> int | None:
    """The uid or gid that the digits say; None if they say none."""
    # int() itself refuses some thousands of digits.
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) and int(text) <= LARGEST else None


def check_number(number: int | None, text: str, option: str) -> int:
    """The number, if a rule can be about it.

    Raises:
        UsageError: no rule can.
    """
    if number is None:
        raise UsageError(f"{option} {text}: a number is from 0 to {LARGEST}")
    if number == OVERFLOW_UID:
        raise UsageError(
            f"{option} {text}: {OVERFLOW_UID} is what the kernel shows for a user that this user namespace does not "
            "know; no rule can be about it"
        )
    return number
