"""How much memory this process and its children may use: that of the machine, or less by a control group."""

from __future__ import annotations

import os
from pathlib import Path

from stillup.host import control_groups


def usable() -> int:
    """Bytes: those of the machine, or fewer by ``memory.max`` of a control group (cgroups(7))."""
    limits = (limit for folder in control_groups.folders("memory") if (limit := _limit(folder)) is not None)
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def _limit(folder: Path) -> int | None:
    """Of a group: ``memory.max``, of version 1 ``memory.limit_in_bytes``; None if it is not limited."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            text = (folder / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else None
    return None
