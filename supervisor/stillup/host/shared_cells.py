"""Cells that two processes share: a worker counts in sealed memory by mmap(2), the supervisor reads it by pread(2).

The memory is a memfd that can't grow, shrink or be executed: a worker that has it can take no more than its one page.
It ends with the last process that has it, so the supervisor keeps a copy of what is in it, in a file of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import stat
from array import array
from itertools import islice
from pathlib import Path
from typing import Final

from stillup.errors import PeerError
from stillup.host import sealed_memory
from stillup.wire.figure_cells import CELL, SIZE

MEMORY: Final = "stillup-figures"
"""What the memory is called in /proc (memfd_create(2))."""
SEALS: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
MOST_LOOKED_AT: Final = 65_536
"""Descriptors of a process; it may have many more, and get its memory back to us itself."""
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
    """The paths of our user's files that begin so: in /dev/shm anybody may have made others."""
    if not place:
        return []
    directory, name = os.path.split(place)
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.name.startswith(name) and _is_ours(entry)]
    except OSError:
        return []


def _is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def remove(path: str) -> None:
    """Take a file away; one that is gone, or somebody else's, is none of ours."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        os.unlink(path)


def create(path: str) -> int:
    """A new file of SIZE bytes, all zero, that nobody else may open; the descriptor is the caller's.

    Its room is taken now: what is copied there later is not to fail.

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


def create_memory() -> int:
    """A page of memory that two processes may share, all zero and sealed; the descriptor is the caller's.

    Nobody else may open it by its name in /proc, whatever else they may do to the process that has it.

    Raises:
        OSError: it cannot be had.
    """
    fd = sealed_memory.create(MEMORY)
    try:
        os.fchmod(fd, 0o600)
        os.posix_fallocate(fd, 0, SIZE)  # a worker that writes to a page for which there is none would die of SIGBUS
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def identity(fd: int) -> tuple[int, int]:
    """Device and inode of what a descriptor is of."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def is_sealed(fd: int) -> bool:
    """Whether it is memory that can neither grow nor shrink."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS and os.fstat(fd).st_size == SIZE
    except OSError:  # it is no memory
        return False


def memory_of(pid: int, wanted: tuple[int, int]) -> int | None:
    """Open the memory of that identity that a process has; the descriptor is the caller's. None if it can't be had.

    The kernel decides whether we may look (PTRACE_MODE_READ in ptrace(2)): root mostly, and the same user.
    """
    try:
        for name in islice(os.listdir(f"/proc/{pid}/fd"), MOST_LOOKED_AT):
            path = f"/proc/{pid}/fd/{name}"
            with contextlib.suppress(FileNotFoundError):
                if not os.readlink(path).startswith(f"/memfd:{MEMORY}"):
                    continue
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
                if identity(fd) == wanted:
                    return fd
                os.close(fd)
    except OSError:
        return None
    return None


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
    """The cells as they are, zeros where nothing is: by pread(2), of which the kernel copies at least a cell at a time.

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

    Cells in a file that others may cut short would end whoever looks at them by SIGBUS: this is for a worker alone.

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
