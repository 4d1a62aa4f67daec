"""The configuration file, as far as it is a file: what is read of it, and who else decides what it says."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import PurePath
from typing import Final

from stillup.errors import Refused, UsageError
from stillup.host import path_walk
from stillup.host.accounts import Account
from stillup.wire.config_text import FILES, ConfigText, parse

MOST: Final = 1024 * 1024
"""Bytes of a file; nobody's is as large."""


def read(path: str, *, named: bool) -> str:
    """Its text.

    Args:
        path: the file's.
        named: whether somebody has named it, be it a pipe; what is come upon in a directory is a regular file.

    Raises:
        OSError: there is no such file, or it is none that can be read; a FIFO that is not named is not waited for.
        UnicodeDecodeError: it is no UTF-8.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | (0 if named else os.O_NONBLOCK))
    try:
        return _content(fd, regular=not named)
    finally:
        os.close(fd)


def _content(fd: int, *, regular: bool) -> str:
    """What an open file has; ``regular``: whether it has to be a regular one."""
    if regular and not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    with open(fd, "rb", closefd=False) as file:
        content = file.read(MOST + 1)
    if len(content) > MOST:
        raise OSError(errno.EFBIG, f"larger than {MOST // 1024} KiB")
    return content.decode()


def read_again(path: str) -> tuple[str, str]:
    """The text of a file that was read before, and who else could have written it; empty if nobody could.

    Whoever may exchange a level of its path, or write to the file, decides what it says: nobody but root and our own
    user is to (``path_walk``). A link as the last level is followed.

    Raises:
        OSError: it is not there, cannot be read, or is no regular file.
        UnicodeDecodeError: it is no UTF-8.
    """
    way, name = path_walk.walk_to_file(path)
    hazards = [hazard.why for hazard in way.hazards_inside]
    try:
        at = os.path.join(way.path, name)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=way.fd)
    except OSError as error:
        if error.errno == errno.ELOOP and hazards:
            return "", hazards[0]
        raise
    finally:
        way.close()
    try:
        hazards += path_walk.hazards_of_file(at, os.fstat(fd))
        return _content(fd, regular=True), hazards[0] if hazards else ""
    finally:
        os.close(fd)


def find(given: str | None) -> ConfigText:
    """The file that is named, or the one in the working directory; one without a path if there is none.

    Raises:
        UsageError: it cannot be read, or is no TOML.
    """
    for path in (given,) if given else FILES:
        try:
            text = read(path, named=given is not None)
        except FileNotFoundError:
            if given:
                raise UsageError(f"{path}: there is no such file (--config)") from None
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: {error}") from error
        if (found := parse(path, text)) is not None:
            return found
        if given:
            raise UsageError(f"{path}: it has no [tool.stillup] (--config)")
    return ConfigText()


def create(path: str, text: str) -> None:
    """Write a new file; one that is there stays as it is.

    Raises:
        Refused: there is one, be it a symbolic link that leads nowhere.
        OSError: it cannot be written.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Refused(f"{path} is there already, and is left as it is", code="unavailable") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)


def written_by(path: str, account: Account) -> str:
    """The level of the way to a file at which that user can exchange or change it; empty if there is none.

    Both its own way and the one behind symbolic links count; an access control list as the bits of its mode (acl(5)).
    """
    for way in (os.path.abspath(path), os.path.realpath(path)):
        name = way
        for level in (way, *map(str, PurePath(way).parents)):
            if _may_write(os.lstat(level), account) and not (level != way and _is_kept(level, name, account)):
                return level
            name = level
    return ""


def _may_write(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:  # who may as well change the mode
        return True
    needed = stat.S_IWGRP if status.st_gid in (account.gid, *account.groups) else stat.S_IWOTH
    return not stat.S_ISLNK(status.st_mode) and bool(status.st_mode & needed)


def _is_kept(directory: str, path: str, account: Account) -> bool:
    """Whether what is in a directory that the user may write to is another's to exchange: it is sticky (unlink(2))."""
    status = os.lstat(directory)
    return bool(status.st_mode & stat.S_ISVTX) and account.uid not in (status.st_uid, os.lstat(path).st_uid)
