"""How many processors this process may use: those that it may run on, and what its control group is given of them."""

from __future__ import annotations

import math
import os
from pathlib import Path

from stillup.host import control_groups


def usable() -> int:
    """As many as the mask of sched_setaffinity(2) has, or fewer by cpu.max of a control group; at least 1.

    A share of a processor counts as one.
    """
    quotas = (quota for folder in control_groups.folders("cpu") if (quota := _quota(folder)) is not None)
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, quotas)]))


def _quota(folder: Path) -> float | None:
    """How many processors a group may use: ``cpu.max``, of version 1 ``cpu.cfs_*``; None if it is not limited."""
    try:
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(quota) / int(period) if quota.isdecimal() else None
