"""Resolving what to run: once a reload, then kept for that generation."""

from __future__ import annotations

import os
import sys

from dotenv import dotenv_values

from supervisor.core.commands import Spawn
from supervisor.core.model import Release
from supervisor.core.release import label
from supervisor.daemon.config import Settings
from supervisor.errors import Refused
from supervisor.host.fingerprint import fingerprint

_OURS = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Word between the service manager and the supervisor that no worker may repeat."""


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
    environment = dict(os.environ)
    if settings.rights.worker is not None:
        environment.update(settings.rights.worker.environment)
    if settings.env_file:
        file = os.path.join(directory, settings.env_file)
        if not os.path.isfile(file):
            raise Refused(f"the environment file {file} is not there (--env-file)", code="release")
        # As uvicorn has it: what is in the environment already wins.
        try:
            environment = {**{k: v for k, v in dotenv_values(file).items() if v is not None}, **environment}
        except (OSError, ValueError) as error:
            raise Refused(f"the environment file {file} cannot be read: {error}", code="release") from error
    for name in _OURS:
        environment.pop(name, None)
    return Release(
        app=settings.app,
        python=python,
        directory=directory,
        app_dir=os.path.join(directory, settings.app_dir),
        label=label(directory),
        environment=environment,
        options=settings.options,
        health_path=settings.health_path,
        health_host=settings.health_host,
        max_worker_age=settings.max_worker_age,
        max_worker_rss=settings.max_worker_rss,
        fingerprint=fingerprint(directory),
    )


def _check_text(word: str) -> None:
    """A worker is told it in JSON, which has no way to say other bytes (os.fsdecode makes surrogates of them)."""
    shown = word.encode(errors="backslashreplace").decode()
    if shown != word:
        raise Refused(f"'{shown}' is no UTF-8; give it another name", code="release")


def worker_environment(command: Spawn, handoff_path: str, nonce: str) -> dict[str, str]:
    """A worker's whole environment."""
    return {
        **command.release.environment,
        "STILLUP_GENERATION": str(command.generation),
        "STILLUP_WORKER": str(command.slot),
        "STILLUP_HANDOFF": handoff_path,
        "STILLUP_NONCE": nonce,
    }
