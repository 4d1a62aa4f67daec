"""A walk to a directory, level by level and by descriptor: who else could put another one in its place.

A path is looked up anew each time that it is used, and whoever may rename or replace one level of it decides where it
leads. So each level is opened by itself (``O_PATH|O_NOFOLLOW`` in open(2)) and looked at:

1. Root, this process's own user and the owner of ``/`` are trusted: each of them could exchange anything here.
2. A directory of anybody else's is a hazard: its owner may rename what is in it, whatever its mode is.
3. So is one that a group or everybody can write to, unless it is sticky (unlink(2)): then each name in it is its
   owner's. A group that is our user's own, as useradd(8) makes it, is nobody else.
4. So is a symbolic link of anybody else's: where it leads was that user's choice.

Where there is no hazard the path leads to the same directory as long as those modes and owners stay, and may be used as
a name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

import msgspec

MOST_LINKS: Final = 40
"""Symbolic links on a way, as the kernel has it (path_resolution(7))."""
MOST_ATTEMPTS: Final = 3
"""Times that a level which is missing is made, while somebody removes it again."""
_LEVEL: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Hazard(msgspec.Struct, frozen=True):
    """A level of a path that somebody else decides about."""

    why: str
    """What is wrong there, and what could come of it."""
    uid: int | None
    """Whose it is; None for a group or everybody."""
    gid: int | None = None
    """The group, where it alone may write there."""


class Way(msgspec.Struct):
    """A directory, and what was seen on the way to it. Owns the descriptor (``O_PATH``)."""

    fd: int
    status: os.stat_result
    hazards: list[Hazard]
    made: list[str]
    """The levels that were missing, and were made on the way; the first one first."""

    @property
    def hazards_inside(self) -> list[Hazard]:
        """The hazards of a name in this directory that is ours."""
        return [*self.hazards, *_hazards_in(self.fd, self.status)]

    @property
    def path(self) -> str:
        """Where it is now (proc_pid_fd(5))."""
        return _path(self.fd)

    @property
    def has_descriptors(self) -> bool:
        """Whether what is in it is what a process has open, as behind ``/dev/stdout``: links whose text is no path."""
        return self.path.startswith("/proc/") and self.path.endswith("/fd")

    def close(self) -> None:
        os.close(self.fd)


def trusted() -> frozenset[int]:
    """The users who may exchange a level: root, our own, and the owner of ``/``.

    The last is root, too, but in a user namespace where that has no number (user_namespaces(7)).
    """
    return frozenset({0, os.geteuid(), os.stat("/").st_uid})


def walk(path: str, make: int | None = None) -> Way:
    """Walk to a directory. The caller closes what is returned.

    Args:
        path: the directory's; from the working directory, if it is relative.
        make: the mode of levels that are missing and are to be made; None: none is. Behind a hazard nothing is made:
            the walk ends at the last level that is there.

    Raises:
        OSError: there is no such directory, or it cannot be looked at or made.
    """
    steps = _Steps(os.path.join(os.getcwd(), path) if not path.startswith("/") else path)
    try:
        while steps.rest:
            steps.go_on(make)
    except BaseException:
        os.close(steps.fd)
        raise
    return Way(steps.fd, os.fstat(steps.fd), steps.hazards, steps.made)


def walk_to_file(path: str, minds: Callable[[Hazard], bool] = lambda _: True) -> tuple[Way, str]:
    """Walk to the directory that a file is in, and the file's name there; the caller closes the way.

    Links that the name leads to are followed, each after a walk to its directory. Behind a hazard none is, and its own
    name is returned; so it is where the directory ``has_descriptors``.

    Args:
        path: the file's; it need not be there.
        minds: whether a hazard is one.

    Raises:
        OSError: there is no such directory, it cannot be looked at, or links lead in a circle.
    """
    seen: list[Hazard] = []
    for _ in range(MOST_LINKS):
        directory, name = os.path.split(path)
        way = walk(directory or ".")
        try:
            way.hazards[:0] = [hazard for hazard in seen if hazard not in way.hazards]
            target = _target(way, name)
        except BaseException:
            way.close()
            raise
        if target is None or any(map(minds, way.hazards_inside)):
            return way, name
        seen = way.hazards
        way.close()
        path = os.path.join(directory, target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _target(way: Way, name: str) -> str | None:
    """Where a link in a directory leads, if the name is one that is to be followed; its owner may be a hazard."""
    if name in ("", ".", "..") or way.has_descriptors:
        return None
    try:
        link = os.open(name, _LEVEL, dir_fd=way.fd)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(link)
        if not stat.S_ISLNK(status.st_mode):
            return None
        if status.st_uid not in trusted():
            way.hazards.append(_of_link(way.fd, name, status, "is a symbolic link and"))
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def hazards_of_file(path: str, status: os.stat_result) -> list[str]:
    """Who else can write to a file; ``path``: as it is called in a message."""
    if status.st_uid not in trusted():
        return [f"{path} is of uid {status.st_uid}"]
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_own(status.st_gid)):
        return [f"others can write to {path} (mode {mode:04o}): take that from them"]
    return []


class _Steps:
    """A walk that is under way. Owns the descriptor of the directory that it has come to."""

    def __init__(self, path: str) -> None:
        self.fd = os.open("/", _LEVEL | os.O_DIRECTORY)
        self.rest = _names(path)
        """The names that are left, the next one last."""
        self.hazards: list[Hazard] = []
        self.made: list[str] = []
        self._links = 0
        self._attempts = 0

    def go_on(self, make: int | None) -> None:
        """Go to the next name, or have a link's target in the place of its name."""
        name = self.rest.pop()
        at = os.fstat(self.fd)
        for hazard in _hazards_in(self.fd, at):
            if hazard not in self.hazards:
                self.hazards.append(hazard)
        try:
            found = _open(name, self.fd)
        except FileNotFoundError:
            if make is None or self._attempts == MOST_ATTEMPTS:
                raise
            if self.hazards:
                self.rest.clear()
            else:
                self._make(name, make)
            return
        status = os.fstat(found)
        if stat.S_ISDIR(status.st_mode):
            if _is_shared(at):
                self._note_owner(name, status, "is in a directory that all can write to and")
            os.close(self.fd)
            self.fd = found
            return
        try:
            if not stat.S_ISLNK(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self._note_owner(name, status, "is a symbolic link and")
            self._follow(os.readlink("", dir_fd=found))
        finally:
            os.close(found)

    def _make(self, name: str, mode: int) -> None:
        self._attempts += 1
        self.rest.append(name)
        try:
            os.mkdir(name, mode, dir_fd=self.fd)
        except FileExistsError:  # somebody was faster
            return
        self.made.append(_path(self.fd, name))

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            root = os.open("/", _LEVEL | os.O_DIRECTORY)
            os.close(self.fd)
            self.fd = root
        self.rest += _names(target)

    def _note_owner(self, name: str, status: os.stat_result, what: str) -> None:
        if status.st_uid not in trusted():
            self.hazards.append(_of_link(self.fd, name, status, what))


def _of_link(directory: int, name: str, status: os.stat_result, what: str) -> Hazard:
    why = f"{_path(directory, name)} {what} belongs to uid {status.st_uid}, who can put another in its place"
    return Hazard(why, status.st_uid)


def _names(path: str) -> list[str]:
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _open(name: str, directory: int) -> int:
    try:
        return os.open(name, _LEVEL | os.O_DIRECTORY, dir_fd=directory)  # has an automounter mount it
    except NotADirectoryError:
        return os.open(name, _LEVEL, dir_fd=directory)


def _hazards_in(fd: int, status: os.stat_result) -> list[Hazard]:
    """Who else can exchange what is in a directory."""
    if status.st_uid not in trusted():
        why = f"{_path(fd)} is of uid {status.st_uid}, who can put another directory in the place of ours"
        return [Hazard(why, status.st_uid)]
    mode = stat.S_IMODE(status.st_mode)
    if not mode & stat.S_ISVTX and (mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_own(status.st_gid))):
        why = (
            f"others can write to {_path(fd)}, and so put a directory of their own in the place of ours "
            f"(mode {mode:04o}): take that from them"
        )
        return [Hazard(why, None, None if mode & stat.S_IWOTH else status.st_gid)]
    return []


def _is_own(gid: int) -> bool:
    from stillup.host import accounts  # noqa: PLC0415 - of use where a group may write: most ways have no such level

    return accounts.is_own_group(gid)


def _is_shared(status: os.stat_result) -> bool:
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _path(fd: int, name: str = "") -> str:
    """Where a descriptor leads now, for a message (proc_pid_fd(5))."""
    return os.path.join(os.readlink(f"/proc/self/fd/{fd}"), name).rstrip("/") or "/"
