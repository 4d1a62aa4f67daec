"""Which supervisor is meant."""

from __future__ import annotations

import os

from supervisor.client.http import NotRunningError
from supervisor.errors import UsageError
from supervisor.wire.places import CONTROL, bases, check_name


def find(name: str | None, runtime_dir: str | None) -> str:
    """The runtime directory of the service that is meant: the one named, or the only one there is.

    Raises:
        NotRunningError: there is none.
        UsageError: there are several.
    """
    if runtime_dir is not None:
        return runtime_dir
    places = bases(os.geteuid(), os.environ)
    if name is not None:
        candidates = [f"{base}/{check_name(name)}" for base in places]
        return next((c for c in candidates if os.path.exists(f"{c}/{CONTROL}")), candidates[0])
    if os.environ.get("RUNTIME_DIRECTORY"):
        return os.environ["RUNTIME_DIRECTORY"].partition(":")[0]
    running = sorted(f"{base}/{entry}" for base in places for entry in _entries(base))
    running = [directory for directory in running if os.path.exists(f"{directory}/{CONTROL}")]
    if not running:
        raise NotRunningError(f"no supervisor runs here (looked in {', '.join(places)}); --runtime-dir says where else")
    if len(running) > 1:
        names = ", ".join(directory.rpartition("/")[2] for directory in running)
        raise UsageError(f"several services run here; say which with --name: {names}")
    return running[0]


def _entries(base: str) -> list[str]:
    try:
        return os.listdir(base)
    except OSError:
        return []
