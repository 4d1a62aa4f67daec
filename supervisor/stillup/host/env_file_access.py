"""Reading an environment file with the rights of whom it is for.

Whoever can write in the directory of such a file decides what is opened by its name. So with ``--worker-user``:

1. What nobody but root could have put there (``path_walk``) is read as root: what it says was root's to say.
2. Everything else is opened, read and understood by a process of the workers' user, with a deadline and a limit of
   memory: half a megabyte of it can take hours, or all the memory there is.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final

from stillup.errors import Refused
from stillup.host import env_file, path_walk, program_run
from stillup.host.accounts import Account

DEADLINE: Final = 10.0
"""Seconds that the process may take which reads one."""
MOST_ANSWER: Final = 8 * env_file.MOST_ENVIRONMENT
"""Bytes of its answer: in JSON a byte may take six."""
READER: Final = "stillup.host.env_file_reader"
_INTERPRETERS: Final = ("PYTHON", "LD_")
"""How the names of variables begin that our interpreter may need to be what it is."""


def read(path: str, environment: Mapping[str, str], account: Account | None) -> dict[str, str]:
    """The variables of an environment file, those of the environment expanded. Blocks.

    Args:
        path: the file's.
        environment: what ``${NAME}`` in it may name, besides its own variables.
        account: whom it is for; None for our own user.

    Raises:
        Refused: it is not there, is no such file, or cannot be read.
    """
    if account is None:
        return env_file.variables(env_file.open_file(path), path, environment)
    fd = _open_if_ours(path)
    if fd is None:
        return _read_as(account, path, environment)
    return env_file.variables(fd, path, environment)


def _read_as(account: Account, path: str, environment: Mapping[str, str]) -> dict[str, str]:
    told = {
        "path": path,
        "environment": dict(environment),
        "uid": account.uid,
        "gid": account.gid,
        "groups": [account.gid, *account.groups],
    }
    ours = {name: value for name, value in os.environ.items() if name.startswith(_INTERPRETERS)}
    argv = (sys.executable, "-P", "-m", READER)
    try:
        done = program_run.run(argv, ours, json.dumps(told).encode(), deadline=DEADLINE, most=MOST_ANSWER)
    except TimeoutError:
        raise env_file.refused(path, f"is not read within {DEADLINE:g} s") from None
    except OSError as error:
        raise env_file.refused(path, f"cannot be read: {error.strerror}") from error
    try:
        answer = json.loads(done.stdout)
        if "refused" in answer:
            raise Refused(answer["refused"], code="release")
        return dict(answer["variables"])
    except (ValueError, KeyError, TypeError) as error:
        raise env_file.refused(path, f"cannot be read: the process that does so {done.how}") from error


def _open_if_ours(path: str) -> int | None:
    """Open one if nobody but root and our own user could have put it there, or written it; else None."""
    try:
        for _ in range(path_walk.MOST_LINKS):
            way = path_walk.walk(os.path.dirname(path))
            try:
                found = None if way.hazards_inside else _open_ours(PurePath(path).name, way.fd)
            finally:
                way.close()
            if not isinstance(found, str):
                return found
            path = os.path.join(os.path.dirname(path), found)
    except OSError:
        pass  # it may be that user's to see, and whoever reads it for that user says what is wrong
    return None


def _open_ours(name: str, directory: int) -> int | str | None:
    """Its descriptor, or where a link leads."""
    entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(entry)
        if status.st_uid not in path_walk.trusted():
            return None
        if stat.S_ISLNK(status.st_mode):
            return os.readlink("", dir_fd=entry)
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        return os.open(f"/proc/self/fd/{entry}", env_file.OPEN)
    finally:
        os.close(entry)
