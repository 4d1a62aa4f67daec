"""When two releases are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

import msgspec

from stillup.core.model import Release
from stillup.core.values import replace

VOLATILE: Final = frozenset(
    {
        *("INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID", "MANAGERPIDFDID"),
        *("SHLVL", "OLDPWD", "PWD", "_"),
    }
)
"""Variables that are different each time the same thing is started."""


def label(directory: str) -> str:
    """How people call what runs in an absolute directory: its last two parts."""
    return "/".join(directory.strip("/").split("/")[-2:])


def same(one: Release, other: Release) -> bool:
    """Whether two releases run the same thing, as far as a supervisor that was started again can tell.

    Also where they listen, if that is known of both.
    """
    if not (one.binds and other.binds):
        one, other = replace(one, binds=()), replace(other, binds=())
    return _comparable(one) == _comparable(other)


def identity(release: Release) -> str:
    """What tells a release from any other: a digest of all that ``same`` compares, and of how its code looks."""
    lasting = replace(_comparable(release), fingerprint=release.fingerprint)
    plain = json.dumps(msgspec.to_builtins(lasting, str_keys=True), sort_keys=True)
    return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()


def sharing(release: Release, known: Release) -> Release:
    """The same release; if its environment equals the known one's it is that one, and takes no memory of its own.

    An environment of 60 variables takes 10 KB, is read anew at each reload, and is mostly the same.
    """
    environment = known.environment if known.environment == release.environment else release.environment
    return replace(release, environment=environment)


def overwritten(release: Release, by: Release) -> bool:
    """Whether a release was changed in place, and is another one now."""
    return release.directory == by.directory and release.fingerprint != by.fingerprint


def _comparable(release: Release) -> Release:
    """Without what says how it looks on the disk: changing files there is no way to ask for a reload.

    And without what is no setting of the workers alone: the time that they serve on without a supervisor, whose default
    depends on how that was started, and how often they report, which comes of the limit after which they hang.
    """
    settings = replace(release.settings, orphan_timeout=0.0, report_interval=0.0)
    return replace(release, environment=_lasting(release.environment), fingerprint="", settings=settings)


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in VOLATILE}
