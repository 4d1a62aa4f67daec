"""Socket files (unix(7)), in directories where others may write: by descriptor, since a name may be exchanged.

1. The directory is opened once; what is done with the file is done by its name there, and never behind a link. bind(2)
   alone has nothing but the whole path: where that leads elsewhere by then, there is no such file in the directory.
2. Mode and owner are given to a descriptor of the file (``O_PATH|O_NOFOLLOW``) that was looked at: a socket, of one
   name, on which nobody listens. That is the one just bound or a dead one, and neither lets anybody in who may not.
3. A stale file is removed under a lock that nobody else can hold: a file beside it that only our user may open. Whoever
   can put something else there in its place could as well take the path itself.
4. A file that was ours is removed while it has the inode that it had.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from stillup.errors import Unavailable
from stillup.host.callers_socket import refuse_descriptors

LOCK_DEADLINE: Final = 5.0
"""Seconds in which another process of ours, which takes the path at the same time, is done with it."""
FOREIGN_DEADLINE: Final = 0.5
"""The same for one of another user, whose lock we can neither hold nor trust: then we go on."""
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_IN_THE_WAY: Final = frozenset({errno.EACCES, errno.ELOOP, errno.ENXIO, errno.EISDIR})
"""What open(2) says of a lock's name under which something else is, or another user's file."""


class UnixFile(msgspec.Struct, frozen=True):
    """A socket file, known by its inode: a path may come to name somebody else's."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, path: str) -> UnixFile:
        status = os.lstat(path)
        return cls(path, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Unlink the path if it still names this file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _directory(self.path) as directory:
            name = os.path.basename(self.path)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == (self.device, self.inode):
                os.unlink(name, dir_fd=directory)


def take_path(path: str, mode: int, uid: int, gid: int, backlog: int) -> tuple[socket.socket, UnixFile]:
    """Listen on a path, on which a socket file that nobody listens on may be left over.

    Args:
        path: where the file is to be.
        mode: its permission bits.
        uid: its owner; -1 for our own user.
        gid: its group; -1 for the one that new files have there.
        backlog: of listen(2).

    Raises:
        Unavailable: somebody listens there, something else is there, or the path cannot be had.
    """
    try:
        with _directory(path) as directory, _locked(path, directory):
            _clear_stale(path, directory)
            sock, file = bind_unix(path, mode, uid, gid)
            try:
                sock.listen(backlog)
            except OSError:
                sock.close()
                file.remove()
                raise
    except OSError as error:
        raise _unavailable(path, error) from error
    return sock, file


def try_path(path: str, uid: int, gid: int) -> None:
    """See that ``take_path`` could have a path now, as far as that can be seen without a change.

    Raises:
        Unavailable: it could not.
    """
    try:
        with _directory(path) as directory:
            if not os.access(f"/proc/self/fd/{directory}", os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, f"no right to make a file in {os.path.dirname(path) or '.'}")
            with contextlib.suppress(FileNotFoundError), _opened(path, directory) as fd:
                _check_kind(path, os.fstat(fd))
                if _is_alive(fd):
                    raise _taken(path)
        may_give = os.geteuid() == 0 or (uid in (-1, os.geteuid()) and gid in (-1, os.getegid(), *os.getgroups()))
        if not may_give:
            raise PermissionError(errno.EPERM, "not permitted")
    except OSError as error:
        raise _unavailable(path, error) from error


def bind_unix(
    path: str,
    mode: int,
    uid: int = -1,
    gid: int = -1,
    *,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    replace: bool = False,
) -> tuple[socket.socket, UnixFile]:
    """Bind a socket file with its final mode and owner; until listen(), nobody can connect to it (ECONNREFUSED).

    Of a stream nobody can send descriptors to what is accepted there, where the kernel can have it so.

    With ``replace``, a file that is there is removed first.

    Raises:
        Unavailable: the path cannot be had.
    """
    name = os.path.basename(path)
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    if kind is socket.SOCK_STREAM:
        refuse_descriptors(sock)
    try:
        with _directory(path) as directory:
            if replace:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            os.fchmod(
                sock.fileno(), 0o600
            )  # bind(2) makes the file with this, less the umask: at no moment is it wider
            sock.bind(path)
            with _opened(path, directory) as fd:
                status = os.fstat(fd)
                if not _is_new(fd, status, kind):
                    raise Unavailable(
                        f"cannot bind unix:{path}: somebody exchanges the files in {os.path.dirname(path)}; "
                        "choose a directory where others cannot write"
                    )
                file = UnixFile(path, status.st_dev, status.st_ino)
                try:
                    _give(fd, mode, uid, gid)
                except OSError:
                    file.remove()
                    raise
    except Unavailable:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise _unavailable(path, error) from error
    return sock, file


def give(path: str, mode: int, uid: int = -1, gid: int = -1) -> None:
    """Give a socket file its owner, then its mode: at no moment can the old owner do what only the new one may.

    Raises:
        Unavailable: we may not, or it is no socket.
    """
    try:
        with _directory(path) as directory, _opened(path, directory) as fd:
            _check_kind(path, os.fstat(fd))
            _give(fd, mode, uid, gid)
    except OSError as error:
        raise _unavailable(path, error) from error


def _give(fd: int, mode: int, uid: int, gid: int) -> None:
    itself = f"/proc/self/fd/{fd}"  # fchown(2) and fchmod(2) refuse an O_PATH descriptor
    os.chown(itself, uid, gid)
    os.chmod(itself, mode)


def _is_new(fd: int, status: os.stat_result, kind: socket.SocketKind) -> bool:
    """Whether a file can be the one that was just bound: who exchanges it can but put a dead one in its place."""
    if not stat.S_ISSOCK(status.st_mode) or status.st_nlink != 1:
        return False
    try:
        return not _is_alive(fd, kind)
    except PermissionError:
        return status.st_uid == os.geteuid()  # our umask keeps ourselves out


def _is_alive(fd: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether somebody listens on a socket file, or has bound one of another kind to it.

    Raises:
        OSError: we may not connect to it.
    """
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(f"/proc/self/fd/{fd}")
        except ConnectionRefusedError:
            return False
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise
    return True


def _clear_stale(path: str, directory: int) -> None:
    """Remove a socket file that nobody listens on. The caller holds the lock that other takers of the path hold.

    Raises:
        Unavailable: somebody listens there, or it is no socket.
        OSError: it cannot be looked at or removed.
    """
    name = os.path.basename(path)
    try:
        with _opened(path, directory) as fd:
            status = os.fstat(fd)
            _check_kind(path, status)
            if _is_alive(fd):
                raise _taken(path)
            if os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), status):
                os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def _check_kind(path: str, status: os.stat_result) -> None:
    if not stat.S_ISSOCK(status.st_mode):
        raise Unavailable(f"cannot bind unix:{path}: the file there is no socket; move it away")


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    """The directory that a path is in, as long as it lasts."""
    fd = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(path: str, directory: int) -> Iterator[int]:
    fd = os.open(os.path.basename(path), _LOOK, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(path: str, directory: int) -> Iterator[None]:
    """Hold the path's lock, so that of two that find a file stale one does not remove the other's new one.

    flock(2) on what others may open would be theirs to hold. The lock's file goes before the lock does.

    Raises:
        Unavailable: another process holds it for longer than LOCK_DEADLINE.
    """
    name = f"{os.path.basename(path)}.lock"
    began = time.monotonic()
    while True:
        fd, ours = _try_lock(name, directory)
        waited = time.monotonic() - began
        if fd is not None or (not ours and waited > FOREIGN_DEADLINE):
            break
        if waited > LOCK_DEADLINE:
            raise Unavailable(f"cannot bind unix:{path}: another process holds the lock {path}.lock")
        time.sleep(0.01)  # start-up: nobody waits for us yet, and flock(2) with a time limit does not exist
    try:
        yield
    finally:
        if fd is not None:
            with contextlib.suppress(OSError):  # who may write there has removed it
                os.unlink(name, dir_fd=directory)
            os.close(fd)


def _try_lock(name: str, directory: int) -> tuple[int | None, bool]:
    """The lock's descriptor, if it could be had now, and whether what is there is ours to wait for."""
    try:
        fd = os.open(name, _LOCK, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            return None, False
        raise
    held = False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            return None, False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it has removed the file first: what we locked may be one that is no longer there.
        held = os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), status)
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not held:
            os.close(fd)
    return (fd if held else None), True


def _taken(path: str) -> Unavailable:
    return Unavailable(f"cannot bind unix:{path}: somebody listens there; stop it first, or choose another path")


def _unavailable(path: str, error: OSError) -> Unavailable:
    reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
    directory = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT and not os.path.isdir(directory):
        reason = f"its directory {directory} is not there; make it, or have systemd make it (RuntimeDirectory=)"
    elif error.errno == errno.EACCES:
        reason += f"; uid {os.geteuid()} may not make a file in {directory}"
    if error.errno == errno.EPERM:
        reason += "; only root may give a file to another user, or to a group that it is not in"
    return Unavailable(f"cannot bind unix:{path}: {reason}")
