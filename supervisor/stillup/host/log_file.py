"""A log file: opened at its end, and opened anew when it was renamed (logrotate(8))."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from stillup.errors import Unavailable
from stillup.host import config_file, descriptors, path_walk
from stillup.host.accounts import Account
from stillup.host.path_walk import Hazard, Way

MODE: Final = 0o640
"""Of one that is made."""
# Non-blocking, so that a FIFO that nobody reads is an error, and not waited for.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK
_NOBODY_READS: Final = " (a FIFO that nobody reads, or a socket)"


def open_log(path: str, account: Account | None) -> int:
    """Open it for writing at its end, making it if there is none; the caller's to close. Blocks.

    Args:
        path: absolute. Symbolic links are followed; be it one to what we have open, as ``/dev/stdout`` is.
        account: the workers' user, where that is another: it may write to the file, and not say which file that is.
            Nor may anybody else, but for a group that is not that user's, as root's own ``/var/log`` has one.

    Raises:
        Unavailable: it cannot be opened, or somebody could put another file in its place.
    """
    return _open(path, account, os.O_CREAT)


def try_log(path: str, account: Account | None) -> None:
    """See that ``open_log`` could open it now, without making it. Blocks.

    Raises:
        Unavailable: it could not.
    """
    if (fd := _open(path, account, 0)) >= 0:
        os.close(fd)


def _open(path: str, account: Account | None, make: int) -> int:
    """As ``open_log``; without O_CREAT -1 for a file that is not there, and could be made."""
    try:
        way, name = path_walk.walk_to_file(path, lambda hazard: _counts(hazard, account))
        try:
            if account is not None:
                _check(path, way, account)
            # Of what is open it is the file itself that is opened, wherever its path leads by now.
            follow = 0 if way.has_descriptors else os.O_NOFOLLOW
            try:
                fd = os.open(name, _FLAGS | make | follow, MODE, dir_fd=way.fd)
            except FileNotFoundError:
                if make:
                    raise
                if not os.access(f"/proc/self/fd/{way.fd}", os.W_OK | os.X_OK, effective_ids=True):
                    raise PermissionError(errno.EACCES, f"no right to make a file in {way.path}") from None
                return -1
        finally:
            way.close()
    except OSError as error:
        hint = _NOBODY_READS if error.errno == errno.ENXIO else ""
        raise Unavailable(f"--log-file {path}: {error.strerror}{hint}") from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        os.close(fd)
        raise Unavailable(f"--log-file {path}: it is no file, FIFO or terminal")
    os.set_blocking(fd, True)
    return fd


def _counts(hazard: Hazard, account: Account | None) -> bool:
    return account is not None and (hazard.gid is None or hazard.gid in (account.gid, *account.groups))


def _check(path: str, way: Way, account: Account) -> None:
    """See that nobody else says which file it is.

    Raises:
        Unavailable: somebody does.
    """
    for directory in (os.path.dirname(path), way.path):
        if level := config_file.written_by(directory, account):
            raise Unavailable(
                f"--log-file {path}: uid {account.uid}, whose the workers are, can write to {level}, and so have any "
                "file of ours written to; have it where only root can"
            )
    for hazard in way.hazards_inside:
        if _counts(hazard, account):
            raise Unavailable(
                f"--log-file {path}: {hazard.why}; so any file of ours could be written to: have it where only root can"
            )


def write_to(fd: int) -> None:
    """Let stdout and stderr lead there, and close it."""
    os.dup2(fd, 1)
    descriptors.put_in_place(fd, 2)
