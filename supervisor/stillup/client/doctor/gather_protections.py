"""Looks at what keeps workers, neighbours and directories apart. As ``gather``: it changes nothing and never fails."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from typing import Final

import psutil

from stillup.client.doctor.facts import ProtectionFacts, SupervisorFacts
from stillup.host import path_walk

MOST_NAMED: Final = 3
"""Processes that are named."""
_FAILS: Final = (psutil.Error, ValueError)
"""What a look at a process may come to; the second: its pid, which a supervisor says, is no number of one."""
_SAID: Final = ("FORWARDED_ALLOW_IPS", "UVICORN_FORWARDED_ALLOW_IPS", "STILLUP_FORWARDED_ALLOW_IPS")


def look(directory: str, service: SupervisorFacts) -> ProtectionFacts:
    """What is to be seen of it from here."""
    workers = _users(service.worker_pids)
    return ProtectionFacts(
        workers,
        tuple(_neighbours(workers, service)),
        tuple(address for address in service.addresses if _is_open(address)),
        _says_who_forwards(service.pid),
        tuple(_hazards(directory, service.uid)),
    )


def _users(pids: Iterable[int]) -> dict[int, str]:
    found = {}
    for pid in pids:
        with contextlib.suppress(*_FAILS):
            uid = psutil.Process(pid).uids().effective
            found[uid] = str(uid)
            with contextlib.suppress(KeyError):
                found[uid] = pwd.getpwuid(uid).pw_name
    return found


def _neighbours(workers: dict[int, str], service: SupervisorFacts) -> Iterator[str]:
    """Processes of the workers' users, but the service's own and those that ask; of a user who works here, none."""
    users = {uid for uid in workers if uid != 0 and (uid != service.uid or service.managed)}
    if not users or service.pid is None:
        return
    with contextlib.suppress(*_FAILS):
        ours = {service.pid, *(one.pid for one in psutil.Process(service.pid).children(recursive=True))}
        ours |= {os.getpid(), *(one.pid for one in psutil.Process().parents())}
        found = 0
        for process in psutil.process_iter(["uids", "name"]):
            uids = process.info["uids"]
            if uids is not None and uids.effective in users and process.pid not in ours and found < MOST_NAMED:
                found += 1
                yield f"{process.info['name']} (pid {process.pid})"


def _is_open(address: str) -> bool:
    """Whether anybody can connect to a Unix socket."""
    if not address.startswith("unix:"):
        return False
    path = address.removeprefix("unix:")
    if path.startswith("@"):
        return True
    try:
        return bool(os.stat(path).st_mode & stat.S_IWOTH)
    except (OSError, ValueError):  # the second: no path, by what the supervisor says
        return False


def _says_who_forwards(pid: int | None) -> bool:
    if pid is None:
        return False
    with contextlib.suppress(*_FAILS):
        process = psutil.Process(pid)
        flagged = any(word.partition("=")[0] == "--forwarded-allow-ips" for word in process.cmdline())
        return flagged or any(name in process.environ() for name in _SAID)
    return False


def _hazards(directory: str, owner: int | None) -> Iterator[str]:
    """Levels of others on the way to the runtime directory; the service's own user is no other."""
    parent = os.path.dirname(os.path.abspath(directory))
    with contextlib.suppress(OSError):
        way = path_walk.walk(parent)
        try:
            yield from (hazard.why for hazard in way.hazards if hazard.uid is None or hazard.uid != owner)
        finally:
            way.close()
