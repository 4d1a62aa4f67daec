"""When two releases are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from supervisor.core.model import Release

VOLATILE: Final = frozenset(
    {"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID", "SHLVL", "OLDPWD", "PWD", "_"}
)
"""Variables that are different each time the same thing is started."""


def label(directory: str) -> str:
    """How people call what runs in an absolute directory: its last two parts."""
    return "/".join(directory.strip("/").split("/")[-2:])


def same(one: Release, other: Release) -> bool:
    """Whether two releases run the same thing, as far as a supervisor that was started again can tell."""
    return _comparable(one) == _comparable(other)


def overwritten(release: Release, by: Release) -> bool:
    """Whether a release was changed in place, and is another one now."""
    return release.directory == by.directory and release.fingerprint != by.fingerprint


def _comparable(release: Release) -> Release:
    """Without what says how it looks on the disk: changing files there is no way to ask for a reload."""
    return replace(release, environment=_lasting(release.environment), fingerprint="")


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in VOLATILE}
