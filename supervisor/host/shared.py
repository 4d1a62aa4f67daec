"""Files of cells that two processes share: a worker counts in one by mmap(2), the supervisor reads it by pread(2)."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
from array import array
from glob import escape, glob
from pathlib import Path
from typing import Final

from supervisor.errors import PeerError
from supervisor.wire.figures import CELL, SIZE

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def place(directory: str, name: str) -> str:
    """What the paths of files begin with that belong to a directory: in it if that is in memory, else in /dev/shm.

    Empty if that is not in memory, either.
    """
    if _is_in_memory(directory):
        return f"{directory}/{name}-"
    if _is_in_memory("/dev/shm"):  # noqa: S108 - made there with O_EXCL and 0600, and looked at before they are read
        digest = hashlib.blake2b(os.fsencode(os.path.realpath(directory)), digest_size=8).hexdigest()
        return f"/dev/shm/stillup-{digest}-{name}-"  # noqa: S108
    return ""


def _is_in_memory(path: str) -> bool:
    """Whether a path's file system has no disk behind it (proc_pid_mountinfo(5))."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == number:
            return source.split()[0] in _IN_MEMORY
    return False


def found(place: str) -> list[str]:
    """The paths of all files that begin so."""
    return glob(f"{escape(place)}*") if place else []


def remove(path: str) -> None:
    """Take a file away; one that is gone, or somebody else's, is none of ours."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        os.unlink(path)


def create(path: str) -> int:
    """A new file of SIZE bytes, all zero, that nobody else may open; the descriptor is the caller's.

    Its room on the disk is taken now: a worker that writes to a page for which there is none would die of SIGBUS.

    Raises:
        OSError: it cannot be; nothing is left of it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, SIZE)
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def reopen(path: str) -> int:
    """A file that another supervisor of this user created; the descriptor is the caller's.

    Raises:
        OSError: it cannot be opened.
        PeerError: it is no file, or somebody else's.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        raise PeerError("it is no file of ours")
    return fd


def read(fd: int) -> memoryview:
    """The cells as they are; not by mmap(2), for a worker that cuts the file short would have us die of SIGBUS.

    The kernel copies at least a cell at a time.

    Raises:
        OSError: it cannot be read.
    """
    return memoryview(os.pread(fd, SIZE, 0).ljust(SIZE, b"\0")).cast("Q")


def write(fd: int, cell: int, *values: int) -> None:
    """Put values into neighbouring cells.

    Raises:
        OSError: they cannot be written.
    """
    os.pwrite(fd, array("Q", values).tobytes(), CELL * cell)


def cells(fd: int) -> memoryview:
    """The cells, to be changed in place; the descriptor may be closed.

    Raises:
        PeerError: it is no file of SIZE bytes, or cannot be mapped.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size != SIZE:
        raise PeerError("what came to count in is no file of the right size")
    try:
        return memoryview(mmap.mmap(fd, SIZE)).cast("Q")
    except OSError as error:
        raise PeerError(f"what came to count in cannot be shared: {error.strerror}") from error
