"""How many processors this process may use: those that it may run on, and what its control group is given of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from stillup.host import proc_files


def usable() -> int:
    """As many as the mask of sched_setaffinity(2) has, or fewer by cpu.max of a control group; at least 1.

    A share of a processor counts as one.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        groups, mounts = proc_files.read("self", "cgroup"), proc_files.read("self", "mountinfo")
    except OSError:
        return allowed
    quotas = (_quota(level) for folder, top in _folders(groups, mounts) for level in _levels(folder, top))
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _folders(groups: str, mounts: str) -> Iterator[tuple[Path, Path]]:
    """Where the process's control groups are that may limit its processors, each with the top of its mount.

    Args:
        groups: ``/proc/PID/cgroup`` (cgroups(7)): of version 2 there are no controllers in the second field.
        mounts: ``/proc/PID/mountinfo``. A mount may show a part of the hierarchy, as in a container: its root.
    """
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in mounts.splitlines():
            before, _, after = mount.partition(" - ")
            root, point = before.split()[3:5]
            kind, _, options = after.split(" ")[:3]  # a mount may have an empty source
            is_one = kind == "cgroup2" if not controllers else kind == "cgroup" and "cpu" in options.split(",")
            if not is_one or (controllers and "cpu" not in controllers.split(",")):
                continue
            below = os.path.relpath(path, root)
            # Not below it: the group is outside of what is shown here, whose top is the nearest.
            yield Path(point) if below.startswith("..") else Path(point, below), Path(point)


def _levels(folder: Path, top: Path) -> Iterator[Path]:
    """A group and those that it is in: each may limit it."""
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


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
