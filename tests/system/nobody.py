"""Somebody who has no rights here: the same commands, as another user."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import STILLUP

NOBODY = 12345
"""A uid that nobody has."""


def as_nobody(*argv: str) -> list[str]:
    """The command, as that user. Skips the test where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    if not _may_run():
        pytest.skip(f"uid {NOBODY} cannot reach {STILLUP}")
    return [*_BECOME, *argv]


def open_up(path: Path) -> None:
    """Let everybody through to a test's folder."""
    for folder in (path, *path.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)


_BECOME = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@functools.cache
def _may_run() -> bool:
    """An environment may lie in somebody's home."""
    argv = [*_BECOME, STILLUP, "--version"]
    return subprocess.run(argv, capture_output=True, cwd="/", check=False, timeout=30).returncode == 0
