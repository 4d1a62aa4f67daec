"""Hot reload as it was configured: what is watched, and what workers are told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from stillup.host import terminal

OF_DEVELOPMENT: Final = frozenset({"reload_dirs", "has_terminal"})
"""Settings of workers that come of it."""
LONGEST_BOOT: Final = 3600.0
"""Seconds that a boot may take by default where somebody may stop in it with a debugger."""


def is_interactive(given: Mapping[str, Any]) -> bool:
    """Whether workers have the terminal as their stdin, for a debugger.

    Only under ``--reload``, from the terminal's foreground, and if they are our own user's: who reads a terminal reads
    what is typed there for others, too. And not if they write to a log file, where nobody would see the question.
    """
    elsewhere = given["worker_user"] or given["log_file"]
    return bool(given["reload"]) and not elsewhere and terminal.is_stdin()


def of_workers(given: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """What workers are told."""
    if not given["reload"]:
        return {}
    directories = given["reload_dirs"] or [directory]
    return {
        "reload_dirs": tuple(os.path.realpath(one) for one in directories),
        "has_terminal": is_interactive(given),
    }


def reload_options(given: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """Uvicorn's ``reload_*`` options."""
    return {
        "reload_dirs": list(given["reload_dirs"]) or [directory],
        "reload_includes": list(given["reload_includes"]) or None,
        "reload_excludes": list(given["reload_excludes"]) or None,
        "reload_delay": given["reload_delay"],
    }
