"""Resolving what to run: once a reload, then kept for that generation."""

from __future__ import annotations

import os
import sys

from stillup.core.model import Release
from stillup.core.release import label
from stillup.daemon.settings.bind_changes import listener_key
from stillup.daemon.settings.config import Settings
from stillup.daemon.settings.release_environment import with_file, worker_environment
from stillup.errors import Refused
from stillup.host import env_file_access
from stillup.host.fingerprint import fingerprint


def resolve(settings: Settings) -> Release:
    """Look at the disk: follow the symlinks, read the environment file. Blocks.

    Raises:
        Refused: something that the release needs is not there.
    """
    directory = os.path.realpath(settings.directory)
    if not os.path.isdir(directory):
        raise Refused(f"the directory {settings.directory} is not there (--directory)", code="release")
    python = os.path.join(directory, settings.python) if settings.python else sys.executable
    if not os.access(python, os.X_OK, effective_ids=True):
        raise Refused(f"the interpreter {python} is not there, or not executable (--python)", code="release")
    for word in (settings.app, directory, python, settings.app_dir):
        _check_text(word)
    account = settings.rights.worker
    environment = worker_environment(os.environ, account, settings.rights.passed)
    file = os.path.join(directory, settings.env_file) if settings.env_file else ""
    variables = env_file_access.read(file, environment, account) if file else {}
    return Release(
        app=settings.app,
        python=python,
        directory=directory,
        app_dir=os.path.join(directory, settings.app_dir),
        label=label(directory),
        environment=with_file(environment, variables, account),
        options=settings.options,
        settings=settings.worker,
        binds=tuple(sorted(listener_key(bind) for bind in settings.binds)),
        fingerprint=fingerprint(directory),
    )


def _check_text(word: str) -> None:
    """A worker is told it in JSON, which has no way to say other bytes (os.fsdecode makes surrogates of them)."""
    shown = word.encode(errors="backslashreplace").decode()
    if shown != word:
        raise Refused(f"'{shown}' is no UTF-8; give it another name", code="release")
