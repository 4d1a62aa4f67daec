"""The control groups (cgroups(7)) that may limit this process, of both versions, as they are mounted where it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stillup.host import proc_files


def folders(controller: str) -> list[Path]:
    """The folders of a controller's groups that this process is in, each one's before that of the group around it.

    Each of them may limit it. Empty where /proc says nothing of control groups.
    """
    try:
        groups, mounts = proc_files.read("self", "cgroup"), proc_files.read("self", "mountinfo")
    except OSError:
        return []
    return [level for folder, top in _own(controller, groups, mounts) for level in _levels(folder, top)]


def _own(controller: str, groups: str, mounts: str) -> Iterator[tuple[Path, Path]]:
    """The process's own groups, each with the top of its mount.

    Args:
        controller: such as ``cpu``.
        groups: ``/proc/PID/cgroup`` (cgroups(7)): of version 2 there are no controllers in the second field.
        mounts: ``/proc/PID/mountinfo``. A mount may show a part of the hierarchy, as in a container: its root.
    """
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in mounts.splitlines():
            before, _, after = mount.partition(" - ")
            root, point = before.split()[3:5]
            kind, _, options = after.split(" ")[:3]  # a mount may have an empty source
            is_one = kind == "cgroup2" if not controllers else kind == "cgroup" and controller in options.split(",")
            if not is_one or (controllers and controller not in controllers.split(",")):
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
