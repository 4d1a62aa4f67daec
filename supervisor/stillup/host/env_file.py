"""Environment files (``--env-file``): regular files of at most MOST bytes, and the variables in them."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Mapping
from typing import Final

from stillup.errors import Refused

MOST: Final = 1024 * 1024
"""Bytes of a file."""
MOST_STRING: Final = 128 * 1024
"""Bytes of a variable with its name and its end, as execve(2) takes it (MAX_ARG_STRLEN)."""
MOST_ENVIRONMENT: Final = 1024 * 1024
"""Bytes of all of them; by default execve(2) takes 2 MiB, with the command line."""
OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""A FIFO is not waited for, a terminal not taken."""


def open_file(path: str) -> int:
    """Open one with the rights that we have.

    Raises:
        Refused: it is not there, or may not be opened.
    """
    try:
        return os.open(path, OPEN)
    except OSError as error:
        raise _unreadable(path, error) from error


def variables(fd: int, path: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables in a file, which is closed; ``${NAME}`` may name those of the environment.

    Raises:
        Refused: it is no such file.
    """
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise refused(path, "is no regular file")
        content = b""
        while len(content) <= MOST and (more := os.read(fd, MOST + 1 - len(content))):
            content += more
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)
    if len(content) > MOST:
        raise refused(path, "is larger than 1 MiB")
    try:
        given = _parse(content.decode(), environment)
    except MemoryError:
        raise refused(path, "takes too much memory") from None
    except ValueError as error:
        raise refused(path, f"cannot be read: {error}") from error
    found = {name: value for name, value in given.items() if value is not None}
    sizes = [len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in found.items()]
    if max(sizes, default=0) > MOST_STRING or sum(sizes) > MOST_ENVIRONMENT:
        raise refused(path, "has more than a process may be started with (execve(2))")
    for name, value in found.items():
        if "=" in name or "\0" in name + value:
            raise refused(path, f"has a variable that no process can have: {name!r}")
    return found


def _parse(text: str, environment: Mapping[str, str]) -> dict[str, str | None]:
    """As ``dotenv_values`` does it, which knows no other environment than that of its process."""
    from dotenv.main import DotEnv  # noqa: PLC0415 - only for who has such a file
    from dotenv.variables import parse_variables  # noqa: PLC0415

    found: dict[str, str | None] = {}
    known: dict[str, str | None] = dict(environment)
    for name, value in DotEnv(None, io.StringIO(text)).parse():
        expanded = None if value is None else "".join(atom.resolve(known) for atom in parse_variables(value))
        found[name] = known[name] = expanded
    return found


def _unreadable(path: str, error: OSError) -> Refused:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return refused(path, "is not there")
    return refused(path, f"cannot be read: {error.strerror}")


def refused(path: str, why: str) -> Refused:
    """A file that is none."""
    return Refused(f"the environment file {path} {why} (--env-file)", code="release")
