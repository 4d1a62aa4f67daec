"""Capabilities of processes, as everybody may read them (capabilities(7), proc_pid_status(5))."""

from __future__ import annotations

import re
from typing import Final

from stillup.host import proc_files

_SET: Final = re.compile(r"^Cap(Inh|Prm|Bnd|Amb):\s*([0-9a-f]+)$", re.MULTILINE)


def holds_more_than_children(pid: int) -> bool:
    """Whether a process holds a capability that no child of ours can have, so that it is none.

    A program has at most the capabilities of its parent's inheritable, permitted, ambient and bounding sets, and the
    last never grows; a process of another user namespace, where all of them may be full, is not judged by them.

    Raises:
        OSError: there is no such process, or it is not for us to see.
    """
    if _users("self") != _users(str(pid)):
        return False
    ours = 0
    for held in _sets("self").values():
        ours |= held
    return bool(_sets(str(pid)).get("Prm", 0) & ~ours)


def _sets(process: str) -> dict[str, int]:
    return {name: int(value, 16) for name, value in _SET.findall(proc_files.read(process, "status"))}


def _users(process: str) -> str:
    return proc_files.read(process, "uid_map")
