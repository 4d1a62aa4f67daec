"""Memory without a name that is passed on by its descriptor (memfd_create(2)): made, sealed, and read.

Whoever gave a descriptor still has it, so what one reads there is checked: that it is such memory, that nobody can
change it any more (all four seals), and that it has the size that was said. It is read, never mapped: a mapping would
die with what is mapped.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from stillup.errors import PeerError

NAME: Final = "stillup-session"
"""As it stands in /proc/PID/fd."""
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_NOEXEC_SEAL: Final = 0x8
"""Linux 6.3; not in Python's os module."""


def create(name: str) -> int:
    """Empty memory that may be sealed, and not executed where the kernel knows that; the descriptor is the caller's.

    Raises:
        OSError: it cannot be had.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)


def sealed(content: bytes) -> int:
    """Memory with that in it, which nobody can change; the descriptor is the caller's.

    Raises:
        OSError: it cannot be had.
    """
    fd = create(NAME)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def read(fd: int, size: int) -> bytes:
    """What is in sealed memory that is said to have so many bytes; the descriptor stays the caller's.

    Raises:
        PeerError: it is something else.
    """
    try:
        seals, has = fcntl.fcntl(fd, fcntl.F_GET_SEALS), os.fstat(fd).st_size
    except OSError as error:
        raise PeerError(f"a session: what came is no memory: {error}") from error
    if seals & _SEALS != _SEALS or has != size:
        raise PeerError(f"a session: memory of {has} bytes with the seals {seals:#x}; {size} bytes were said")
    content = b""
    while len(content) < size:
        try:
            more = os.pread(fd, size - len(content), len(content))
        except OSError as error:  # it is open for writing alone
            raise PeerError(f"a session: its memory cannot be read: {error}") from error
        if not more:
            raise PeerError(f"a session: its memory ends after {len(content)} bytes of {size}")
        content += more
    return content
