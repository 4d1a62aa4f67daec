"""What systemd says of the unit that runs a service; nothing where none does, or systemd does not say."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from stillup.wire.manager_unit import stopped_unit

PATIENCE: Final = 5.0
"""Seconds for an answer."""


def shown(stop_command: str, what: str) -> str:
    """A property of the unit that a command of systemd's stops (systemctl(1)).

    ``stop_command`` is a supervisor's word, and may be anybody's: what is no such command is not asked of.
    """
    program, stopped = shutil.which("systemctl"), stopped_unit(stop_command)
    if program is None or stopped is None:
        return ""
    manager, unit = stopped
    words = [program, *([manager] if manager else []), "show", "--property", what, "--value", "--", unit]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603 - systemd's own
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()


def socket_units(stop_command: str) -> tuple[str, ...]:
    """The ``.socket`` units that start it: they listen on after its stop."""
    return tuple(unit for unit in shown(stop_command, "TriggeredBy").split() if unit.endswith(".socket"))
