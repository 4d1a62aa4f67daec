"""Which unit of systemd a process is part of, by its control group (cgroups(7)), and how that is stopped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_SUFFIX: Final = ".service"
_SYSTEMD: Final = r"systemctl( --user)? stop ([A-Za-z0-9_][\w:.@\\-]{0,246})"
"""What ``stop_command`` makes; a unit's name has at most 255 characters, and these (systemd.unit(5))."""
_SUPERVISORD: Final = r"supervisorctl stop [A-Za-z0-9_][\w:.@-]{0,254}"


def stop_command(cgroup: str) -> str:
    """The command that stops the service unit that a process is part of; empty if it is part of none.

    Args:
        cgroup: the text of ``/proc/PID/cgroup``.
    """
    for line in cgroup.splitlines():
        hierarchy, _, path = line.partition("::") if line.startswith("0::") else line.partition(":name=systemd:")
        if not hierarchy or not path:
            continue
        parts = path.split("/")
        units = [part for part in parts if part.endswith(_SUFFIX)]
        if not units or units[-1].startswith("user@"):
            continue
        of_user = " --user" if any(unit.startswith("user@") for unit in units) else ""
        return f"systemctl{of_user} stop {units[-1].removesuffix(_SUFFIX)}"
    return ""


def stopped_unit(command: str) -> tuple[str, str] | None:
    """The option of systemctl(1) that names the manager, and the unit, of what is said to be such a command.

    None if it is anything else: whoever answers on a control socket may say what they like.
    """
    match = re.fullmatch(_SYSTEMD, command, re.ASCII)
    return ((match[1] or "").strip(), f"{match[2]}{_SUFFIX}") if match is not None else None


def is_stop_command(command: str) -> bool:
    """Whether that is a command as ``managed`` makes them, which a person may be told to type."""
    return stopped_unit(command) is not None or re.fullmatch(_SUPERVISORD, command, re.ASCII) is not None


def managed(environment: Mapping[str, str], pid: int, cgroup: str) -> str:
    """The command that stops the service that a process is the main one of; empty if no service manager started it.

    By what the manager has put into its environment: who is only started from a shell in a unit has that, too, but not
    under its own pid (SYSTEMD_EXEC_PID, systemd.exec(5)); NOTIFY_SOCKET is what systemd before 248 gives.
    """
    if environment.get("SYSTEMD_EXEC_PID") == str(pid) or environment.get("NOTIFY_SOCKET"):
        return stop_command(cgroup)
    if environment.get("SUPERVISOR_ENABLED") and (process := environment.get("SUPERVISOR_PROCESS_NAME")):
        group = environment.get("SUPERVISOR_GROUP_NAME", process)
        return f"supervisorctl stop {process if group == process else f'{group}:{process}'}"
    return ""
