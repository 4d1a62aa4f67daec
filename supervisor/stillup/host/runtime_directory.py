"""The runtime directory and its lock: one supervisor a directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Collection, Container
from pathlib import Path
from typing import Final

import msgspec

from stillup.errors import Unavailable
from stillup.host import path_walk
from stillup.host.descriptors import write_all
from stillup.wire.runtime_paths import LOCK

MOST_READ: Final = 64 << 20
"""Bytes of a file that is read: many times what any of ours comes to."""


class Guest(msgspec.Struct, frozen=True):
    """Somebody who has business in the directory, and is not its owner: the members of a group, or one user."""

    gids: frozenset[int]
    uid: int | None = None

    def __str__(self) -> str:
        return f"uid {self.uid}" if self.uid is not None else f"group {min(self.gids)}"

    def passes(self, status: os.stat_result) -> bool:
        """Whether a directory's mode lets them through; of several bits that could be theirs the first is."""
        if self.uid == status.st_uid:
            needed = stat.S_IXUSR
        else:
            needed = stat.S_IXGRP if status.st_gid in self.gids else stat.S_IXOTH
        return self.uid == 0 or bool(status.st_mode & needed)


class RuntimeDirectory(msgspec.Struct, frozen=True):
    """A directory that this process alone uses. Owns the lock's descriptor."""

    path: str
    lock: int
    created: bool
    """Whether it was made by us, and goes with us."""
    above: tuple[str, ...] = ()
    """Those above it that this process has made. They stay."""

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def read(self, name: str) -> bytes | None:
        """What a file holds; None if there is none.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return read_file(self.file(name), (os.geteuid(), 0))
        except FileNotFoundError:
            return None

    def replace(self, name: str, content: bytes) -> None:
        """Put a file in another's place: a reader finds the old or the new, also after a kill -9. Blocks.

        Nothing here is of use after the power went, so there is no fsync(2), which under load may take seconds.

        Args:
            name: the file's.
            content: what is to be in it.

        Raises:
            OSError: it cannot be; the old one is as it was.
        """
        fresh = self.file(f".{name}.new")
        try:
            fd = _create(fresh)
            try:
                write_all(fd, content)
            finally:
                os.close(fd)
            os.rename(fresh, self.file(name))
        except OSError:
            with contextlib.suppress(OSError):  # what there is of it takes room on a disk that may have none
                os.unlink(fresh)
            raise

    def append(self, name: str) -> int:
        """A descriptor that writes at a file's end; the caller's.

        Raises:
            OSError: there is no such file, or no descriptor.
        """
        return os.open(self.file(name), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def remove(self, *names: str) -> None:
        """Take files away, and what a write of them that was cut off has left."""
        for path in (self.file(file) for name in names for file in (name, f".{name}.new")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def let_through(self, guests: Collection[Guest]) -> None:
        """Have the directory's mode say who gets to what is in it: 0711, or 0700 without guests. None sees its names.

        0710 is left to its group, if that is all of them. What was not made by us keeps its mode.

        Raises:
            Unavailable: that keeps them out.
        """
        status = os.stat(self.path)
        mode, wanted = stat.S_IMODE(status.st_mode), 0o711 if guests else 0o700
        narrower = mode == 0o710 and guests and all(guest.passes(status) for guest in guests)  # noqa: PLR2004 - a mode
        if self.created and mode != wanted and not narrower:
            os.chmod(self.path, wanted)
        for path in self.above:
            status = os.stat(path)
            if status.st_uid == os.geteuid() and not all(guest.passes(status) for guest in guests):
                open_to_all = stat.S_IMODE(status.st_mode) | 0o111
                os.chmod(path, open_to_all)
        self.check_way(guests)

    def check_way(self, guests: Collection[Guest]) -> None:
        """See that they get to what is in the directory, as far as modes say that. Changes nothing.

        Raises:
            Unavailable: they do not.
        """
        if not self.created:  # else its mode is what we make it
            self._check_passes(self.path, guests, "make it 0711 (systemd: RuntimeDirectoryMode=0711)")
        for above in (*Path(self.path).resolve().parents, *Path(self.path).absolute().parents):
            self._check_passes(str(above), guests, f"chmod o+x {above}, or choose another --runtime-dir")

    def _check_passes(self, path: str, guests: Collection[Guest], way_out: str) -> None:
        status = os.stat(path)
        kept_out = next((guest for guest in guests if not guest.passes(status)), None)
        if kept_out is not None and not _has_acl(path):
            which = "its mode" if path == self.path else f"the mode of {path}"
            raise Unavailable(
                f"{kept_out} is to get to {self.path}, and {which} is {stat.S_IMODE(status.st_mode):04o}: {way_out}"
            )

    def close(self) -> None:
        """Give the directory up: remove the lock file while it is still held, and the directory if it was made here."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file(LOCK))
        os.close(self.lock)
        if self.created:
            with contextlib.suppress(OSError):  # somebody put a file into it
                os.rmdir(self.path)


def claim(path: str, *, chosen: bool = True) -> RuntimeDirectory:
    """Make the directory if it is missing (0700), check that nobody else can write into it, and lock it.

    All levels above it are checked, too: who can write to one can put another directory in our place, except in a
    sticky one. Nothing is made below a level that fails. The parent of one that no operator has ``chosen`` has to be
    ours itself: in /tmp anybody may have made it first.

    Raises:
        Unavailable: it cannot be made, is somebody else's, or another supervisor holds it.
    """
    try:
        above, created = _make(path, chosen=chosen)
    except OSError as error:
        raise Unavailable(
            f"cannot make the runtime directory {path}: {error.strerror}; choose one with --runtime-dir"
        ) from error
    if (lock := _lock(path)) is not None:
        return RuntimeDirectory(path, lock, created, above)
    with contextlib.suppress(OSError):
        pid = Path(path, LOCK).read_text(encoding="ascii").strip()
        raise Unavailable(
            f"a supervisor runs in {path} already (pid {pid}); 'stillup stop --runtime-dir {path}' ends it, "
            "another --name runs a second service"
        )
    raise Unavailable(f"a supervisor runs in {path} already")


def _make(path: str, *, chosen: bool) -> tuple[tuple[str, ...], bool]:
    """Those above it that were missing, the nearest first, and whether it was itself.

    Raises:
        Unavailable: somebody else could put another in its place, or write into it.
        OSError: it cannot be made.
    """
    parent, name = os.path.split(path.rstrip("/"))
    with contextlib.closing(path_walk.walk(parent, make=0o755 if os.geteuid() == 0 else 0o700)) as way:
        if hazards := way.hazards_inside:
            raise Unavailable(f"{hazards[0].why}: choose another --runtime-dir")
        if not chosen:
            _check(parent, way.status)
        created = False
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=way.fd)
            created = True
        _check(path, os.stat(name, dir_fd=way.fd, follow_symlinks=False))
        return tuple(reversed(way.made)), created


def _check(path: str, status: os.stat_result) -> None:
    own = status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or not own:
        raise Unavailable(
            f"{path} is not a directory that only uid {os.geteuid()} can write to; choose one with --runtime-dir"
        )


def read_file(path: str, owners: Container[int], *, directory: int | None = None, most: int | None = None) -> bytes:
    """What a regular file holds that may be where others can write.

    Args:
        path: the file's; a symbolic link there is not followed.
        owners: the uids whose file it may be.
        directory: the descriptor of the directory that it is in, where the path is relative to one.
        most: bytes that it may have; None for MOST_READ.

    Raises:
        OSError: there is none, it is another's, of another kind (a FIFO is not waited for) or larger than that.
    """
    limit = MOST_READ if most is None else most
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        if status.st_uid not in owners:
            raise PermissionError(errno.EPERM, f"it is of uid {status.st_uid}", path)
        with open(fd, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(fd)
    if len(content) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content


def _create(path: str) -> int:
    """A new file for nobody else to read, in the place of what a writer that was cut off has left; the caller's.

    Raises:
        OSError: it cannot be made, or somebody keeps putting another in its place.
    """
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, new, 0o600)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, new, 0o600)


def _has_acl(path: str) -> bool:
    """Whether an access control list says who passes, and not the mode alone (acl(5))."""
    try:
        os.getxattr(path, "system.posix_acl_access")
    except OSError:  # there is none, or the file system knows none
        return False
    return True


def _lock(path: str) -> int | None:
    """The lock's descriptor, or None while somebody else holds it."""
    name = f"{path}/{LOCK}"
    while True:
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unavailable(f"cannot open {name}: {error.strerror}; choose a --runtime-dir") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file is removed before its lock is released: what we locked may be a file that is no longer there.
            current = os.stat(name)
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            os.close(fd)
            continue
        if os.path.samestat(current, os.fstat(fd)):
            with contextlib.suppress(OSError):  # no room: the lock is held, but its file has no pid
                os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode())
            return fd
        os.close(fd)
