"""Somebody who has no rights here: the same commands, as another user."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import STILLUP, Service

NOBODY = 12345
"""A uid that nobody has."""


def as_nobody(*argv: str) -> list[str]:
    """The command, as that user. Skips the test where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    if not _may_run():
        pytest.skip(f"uid {NOBODY} cannot reach {STILLUP}")
    return [*_BECOME, *argv]


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder to which everybody gets through.

    Not ``tmp_path`` with other modes: each pytest that starts sets those of the folder around it back.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def let_through(service: Service) -> None:
    """Open the control socket's file, and its directory, to everybody."""
    service.runtime.chmod(0o755)
    (service.runtime / "control.sock").chmod(0o666)


@contextlib.contextmanager
def being(uid: int) -> Iterator[None]:
    """Be somebody else: the kernel tells of a peer what it was at its connect(). Needs root, unless it is oneself."""
    own = os.geteuid()
    if uid == own:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(own)


@contextlib.contextmanager
def being_nobody() -> Iterator[None]:
    """Be that user in every way, with a way back. Skips the test where :func:`as_nobody` does."""
    as_nobody()
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


_BECOME = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@functools.cache
def _may_run() -> bool:
    """An environment may lie in somebody's home."""
    argv = [*_BECOME, STILLUP, "--version"]
    return subprocess.run(argv, capture_output=True, cwd="/", check=False, timeout=30).returncode == 0
