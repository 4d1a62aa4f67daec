"""What has become of each key of the configuration file that says something else than before."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Effect(StrEnum):
    """What a changed key has come to."""

    APPLIED = "applied"
    OVERRIDDEN = "overridden"
    """A flag or a variable of the start says it, and wins."""
    NEEDS_REEXEC = "needs-reexec"
    """It is put into service by the next program of the supervisor's."""
    NEEDS_RESTART = "needs-restart"
    FILE_GONE = "file-gone"
    """The file is not there any more: what it said last stays in force."""


class SettingChange(msgspec.Struct, frozen=True):
    """A changed key."""

    key: str
    """Or the path of the file, if that is gone."""
    effect: Effect
    by: str = ""
    """The flag or the variable that overrides it."""
    what: str = ""
    """Of a bind: which one, and what becomes of it; empty of any other key."""


def change_text(key: str, by: str, what: str) -> str:
    """A change in a list of those that have come to the same."""
    return " ".join(part for part in (key, what, f"({by})" if by else "") if part)
