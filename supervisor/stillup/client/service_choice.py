"""What says which service is meant, in the order in which ``stillup run`` reads it.

A flag, ``STILLUP_NAME`` and ``STILLUP_RUNTIME_DIR``, ``name`` and ``runtime-dir`` of the configuration file, the
service manager's ``RUNTIME_DIRECTORY``; and when none of these says anything, the directory's name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import msgspec

from stillup.errors import UsageError
from stillup.host import config_file
from stillup.wire.config_text import ConfigText
from stillup.wire.runtime_paths import default_name

FLAG: Final = 0
VARIABLE: Final = 1
FILE: Final = 2
MANAGER: Final = 3
"""Ranks of those who say it: the lower one counts."""


class Said(msgspec.Struct, frozen=True):
    """A name or a directory, and who says it."""

    value: str
    rank: int
    source: str
    """For people: ``--name``, ``STILLUP_NAME``, ``stillup.toml, line 2``."""


class Choice(msgspec.Struct, frozen=True):
    """What was said, and what holds if nothing was."""

    name: Said | None
    place: Said | None
    """The runtime directory."""
    manager: Said | None
    """The directory that a service manager has made for the unit that this command is of."""
    default: str
    """The name of a service that is started here without one; empty where there is no working directory any more."""


def choice(name: str | None, runtime_dir: str | None, config: str | None) -> Choice:
    """Find out what is said. What a stronger word makes needless is not read.

    Raises:
        UsageError: the configuration file cannot be read, and nothing stronger says which service is meant.
    """
    environment = os.environ
    if runtime_dir is not None:
        # Who names the directory means it, whatever a variable or a file calls the service that should be there.
        return Choice(_flag(name, "--name"), _flag(runtime_dir, "--runtime-dir"), None, "")
    made = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    manager = Said(made, MANAGER, "RUNTIME_DIRECTORY") if made else None
    try:
        file = config_file.find(config or environment.get("STILLUP_CONFIG") or None)
        named, placed = _of_file(file, "name"), _of_file(file, "runtime-dir")
        directory = environment.get("STILLUP_DIRECTORY") or file.word("directory") or "."
    except UsageError as error:
        if name is None and manager is None:
            raise UsageError(f"{error}; --name or --runtime-dir says which service is meant") from error
        named, placed, directory = None, None, "."
    return Choice(
        _flag(name, "--name") or _variable(environment, "STILLUP_NAME") or named,
        _variable(environment, "STILLUP_RUNTIME_DIR") or placed or manager,
        manager,
        _default(directory),
    )


def _flag(value: str | None, flag: str) -> Said | None:
    return Said(value, FLAG, flag) if value is not None else None


def _variable(environment: Mapping[str, str], name: str) -> Said | None:
    return Said(environment[name], VARIABLE, name) if environment.get(name) else None


def _of_file(file: ConfigText, key: str) -> Said | None:
    value = file.word(key)
    return Said(value, FILE, file.place(key)) if value else None


def _default(directory: str) -> str:
    try:
        return default_name(os.path.abspath(directory))
    except FileNotFoundError:
        return ""
