"""Which supervisor is meant."""

from __future__ import annotations

import os
import socket
import stat

from supervisor.client.http import NotRunningError
from supervisor.errors import UsageError
from supervisor.wire.places import CONTROL, RECORD, SYSTEM, bases, check_name


def find(name: str | None, runtime_dir: str | None, *, left: bool = False) -> str:
    """The runtime directory of the service that is meant: the one named, or the only one there is.

    With ``left``, one whose supervisor has ended without a stop may be meant, too.

    Raises:
        NotRunningError: there is none.
        UsageError: there are several.
    """
    if runtime_dir is not None:
        return runtime_dir
    if os.environ.get("RUNTIME_DIRECTORY"):
        # A unit's own commands mean the unit's own supervisor, which looked here first, too.
        return os.environ["RUNTIME_DIRECTORY"].partition(":")[0]
    places = bases(os.geteuid(), os.environ)
    if name is not None:
        candidates = [f"{base}/{check_name(name)}" for base in places]
        return next((place for place in candidates if runs(place) or (left and is_left(place))), candidates[0])
    running = [place for place in every() if runs(place) or (left and is_left(place))]
    if not running:
        raise NotRunningError(f"no supervisor runs here (looked in {', '.join(places)}); --runtime-dir says where else")
    if len(running) > 1:
        names = ", ".join(directory.rpartition("/")[2] for directory in running)
        raise UsageError(f"several services run here; say which with --name: {names}")
    return running[0]


def every() -> list[str]:
    """All the directories that may be the runtime directory of a service of this user, or of one that lets him in."""
    found = sorted(f"{base}/{entry}" for base in bases(os.geteuid(), os.environ) for entry in _entries(base))
    return [place for place in found if os.geteuid() == 0 or os.path.dirname(place) != SYSTEM or _is_open(place)]


def is_left(directory: str) -> bool:
    """Whether a supervisor was there and did not come to its end."""
    return os.path.exists(f"{directory}/{RECORD}")


def runs(directory: str) -> bool:
    """Whether a supervisor of ours or of the host's listens there: anybody may make a directory."""
    try:
        if not _of_the_host(directory) and os.stat(directory).st_uid not in (0, os.geteuid()):
            return False
    except PermissionError:
        return True  # it is there, and will say so itself
    except OSError:
        return False
    return listens(directory)


def listens(directory: str) -> bool:
    """Whether a supervisor listens there, whosever it is: a file may outlive it."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(f"{directory}/{CONTROL}")
    except PermissionError:
        return True  # it is there, and will say so itself
    except OSError:
        return False
    return True


def _of_the_host(directory: str) -> bool:
    """Whether root alone can have made it, be it for the user of a unit."""
    if os.path.dirname(directory) != SYSTEM:
        return False
    base = os.stat(SYSTEM)
    return base.st_uid == 0 and not base.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_open(directory: str) -> bool:
    return os.access(f"{directory}/{CONTROL}", os.W_OK, effective_ids=True)


def _entries(base: str) -> list[str]:
    try:
        return os.listdir(base)
    except OSError:
        return []
