"""Where a supervisor's runtime directory is. Supervisor and clients look in the same places, in the same order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stillup.errors import UsageError

CONTROL: Final = "control.sock"
OBSERVE: Final = "observe.sock"
FIGURES: Final = "figures"
"""The beginning of the names of the files that hold the counters; those of workers may be elsewhere, in memory."""
HANDOFF: Final = "handoff.sock"
LOCK: Final = "lock"
RECORD: Final = "record.json"
EVENTS: Final = "events.ndjson"
SYSTEM: Final = "/run/stillup"
"""The runtime directories of the host's services: root's, and those of units, each owned by the unit's user."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


def check_name(name: str) -> str:
    """The name, if a service may be called that.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name):
        message = f"a service cannot be named '{name}': use letters, digits and _ . @ - (--name)"
        raise UsageError(message)
    return name


def default_name(directory: str) -> str:
    """A service's name when none is given: its working directory's, with what a name may not hold left out."""
    last = directory.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9_.@-]+", "-", last).strip("-.@_")[:64]
    return name or "app"


def bases(uid: int, environment: Mapping[str, str]) -> list[str]:
    """The directories that may hold runtime directories which concern this user, the preferred one first.

    Root's is the last of everybody's: a service there may let others in.
    """
    if uid == 0:
        return [SYSTEM]
    runtime, shared = environment.get("XDG_RUNTIME_DIR"), f"/tmp/stillup-{uid}"  # noqa: S108 - owner and mode are checked
    if runtime:
        return [f"{runtime}/stillup", shared, SYSTEM]
    # A login has XDG_RUNTIME_DIR, and its services are there (pam_systemd(8)); cron and sudo do not have it.
    return [shared, f"/run/user/{uid}/stillup", SYSTEM]


def runtime_directory(name: str, uid: int, environment: Mapping[str, str]) -> str:
    """The runtime directory of the service of that name, when it is not given with ``--runtime-dir``."""
    by_systemd = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return by_systemd or f"{bases(uid, environment)[0]}/{check_name(name)}"
