"""Listening sockets: made once, by the supervisor, and told apart again by whoever receives one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from supervisor.errors import PeerError, Unavailable, UsageError
from supervisor.host.adoption import cookie
from supervisor.wire.address import AbstractAddress, ActivatedAddress, Bind, InheritedAddress, TcpAddress, UnixAddress
from supervisor.wire.handoff import ListenerInfo

_LOCK_DEADLINE = 5.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound, listening, non-blocking, close-on-exec stream socket, and the socket file that is ours, if any."""

    name: str
    socket: socket.socket
    file: UnixFile | None = None

    @property
    def info(self) -> ListenerInfo:
        """What the socket itself says it is."""
        return describe(self.name, self.socket)

    def close(self) -> None:
        """Close this copy and remove the socket file, if it is still ours."""
        self.socket.close()
        if self.file is not None:
            self.file.remove()


@dataclass(frozen=True, slots=True)
class UnixFile:
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
        with contextlib.suppress(FileNotFoundError):
            if UnixFile.of(self.path) == self:
                os.unlink(self.path)


def open_listener(bind: Bind, backlog: int) -> Listener:
    """Make the listener that a bind asks for. O_NONBLOCK is set here, once: all copies of the socket share it.

    Raises:
        Unavailable: the address, the file or the descriptor is not to be had; the message says why.
        UsageError: the host, the user or the group does not exist.
    """
    match bind.address:
        case TcpAddress():
            listener = Listener(bind.name, _bind_tcp(bind.address))
        case UnixAddress():
            return _listen_unix(bind.name, bind.address, backlog)
        case AbstractAddress(name):
            listener = Listener(bind.name, _bind_abstract(name))
        case InheritedAddress(fd):
            return Listener(bind.name, _adopt(fd))
        case ActivatedAddress(name):
            raise Unavailable(f"systemd passes no socket named '{name}' here")
    try:
        listener.socket.listen(backlog)
    except OSError as error:  # with SO_REUSEADDR it is listen(), not bind(), that finds the port taken
        listener.socket.close()
        raise _unavailable(str(bind.address), error) from error
    return listener


def check_owner(bind: Bind) -> None:
    """See that the user and the group of a socket file exist.

    Raises:
        UsageError: one does not.
    """
    if isinstance(bind.address, UnixAddress):
        _owner(bind.address)


def describe(name: str, sock: socket.socket) -> ListenerInfo:
    """Derive name, family and address from the socket itself."""
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = f"unix:@{where[1:].decode()}" if isinstance(where, bytes) else f"unix:{where}"
    else:
        text = str(TcpAddress(where[0], where[1]))
    return ListenerInfo(name, int(sock.family), text)


def cookie_of_listener(fd: int) -> int | None:
    """The kernel's number of the listening socket that we were started with there; None if there is none."""
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    with sock:
        return cookie(sock) if is_listening(sock) else None


def receive_listener(fd: int, info: ListenerInfo) -> socket.socket:
    """Take a received descriptor for the listener that it was said to be; the socket owns it from here on.

    Raises:
        PeerError: it is something else. The descriptor is closed.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise PeerError(f"listener '{info.name}': what came is no socket") from error
    if not is_listening(sock) or describe(info.name, sock) != info:
        with sock:
            raise PeerError(f"listener '{info.name}': what came is not the listening socket {info.address}")
    return sock


def is_listening(sock: socket.socket) -> bool:
    """Whether connections can be accepted on it."""
    if sock.type != socket.SOCK_STREAM:
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _bind_tcp(address: TcpAddress) -> socket.socket:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UsageError(f"cannot bind {address}: host '{address.host}' is not known ({error.strerror})") from error
    # A name may have both kinds of address; IPv4 is what uvicorn's own supervisor takes.
    family, kind, protocol, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that 0.0.0.0:80 and [::]:80 can be bound side by side.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise _unavailable(str(address), error) from error
    return sock


def _bind_abstract(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(b"\0" + name.encode())
    except OSError as error:
        sock.close()
        raise _unavailable(f"unix:@{name}", error) from error
    return sock


def _adopt(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise Unavailable(
            f"cannot use fd:{fd}: {_reason(error)}; start stillup with a listening socket there"
        ) from error
    if not is_listening(sock):
        sock.detach()
        raise Unavailable(f"cannot use fd:{fd}: it is not a listening stream socket")
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


def _listen_unix(name: str, address: UnixAddress, backlog: int) -> Listener:
    uid, gid = _owner(address)
    with _directory_locked(address.path):
        clear_stale(address.path)
        sock, file = bind_unix(address.path, address.mode, uid, gid)
        try:
            sock.listen(backlog)
        except OSError as error:
            sock.close()
            file.remove()
            raise _unavailable(str(address), error) from error
    return Listener(name, sock, file)


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

    With ``replace``, a file that is there is removed first.

    Raises:
        Unavailable: the path cannot be had.
    """
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        if replace:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        os.fchmod(sock.fileno(), 0o600)  # bind(2) makes the file with this, less the umask: at no moment is it wider
        sock.bind(path)
        file = UnixFile.of(path)
    except OSError as error:
        sock.close()
        raise _unavailable(f"unix:{path}", error) from error
    try:
        give(path, mode, uid, gid)
    except Unavailable:
        sock.close()
        file.remove()
        raise
    return sock, file


def give(path: str, mode: int, uid: int = -1, gid: int = -1) -> None:
    """Give a socket file its owner, then its mode: at no moment can the old owner do what only the new one may.

    Raises:
        Unavailable: we may not.
    """
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
        os.chmod(path, mode)
    except OSError as error:
        raise _unavailable(f"unix:{path}", error) from error


def clear_stale(path: str) -> None:
    """Remove a socket file that nobody listens on. The caller holds the lock that other takers of the path hold.

    Raises:
        Unavailable: somebody listens there, or it is no socket.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unavailable(f"unix:{path}", error) from error
    if not stat.S_ISSOCK(status.st_mode):
        raise Unavailable(f"cannot bind unix:{path}: the file there is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise _unavailable(f"unix:{path}", error) from error
    raise Unavailable(f"cannot bind unix:{path}: somebody listens there; stop it first, or choose another path")


@contextlib.contextmanager
def _directory_locked(path: str) -> Iterator[None]:
    """Hold the directory's flock, so that of two that find a file stale one does not remove the other's new one."""
    parent = str(Path(path).absolute().parent)
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unavailable(f"unix:{path}", error) from error
    try:
        deadline = time.monotonic() + _LOCK_DEADLINE
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(f"cannot bind unix:{path}: another process holds the lock of {parent}") from None
                time.sleep(0.01)  # start-up: nobody waits for us yet, and flock(2) with a time limit does not exist
        yield
    finally:
        os.close(directory)


def _owner(address: UnixAddress) -> tuple[int, int]:
    uid = gid = -1
    try:
        if address.user is not None:
            uid = pwd.getpwnam(address.user).pw_uid
        if address.group is not None:
            gid = grp.getgrnam(address.group).gr_gid
    except KeyError as error:
        raise UsageError(f"cannot bind {address}: {error.args[0]}") from error
    return uid, gid


def _unavailable(where: str, error: OSError) -> Unavailable:
    message = f"cannot bind {where}: {_reason(error)}"
    if error.errno == errno.EADDRINUSE:
        message += _holder(where)
    elif error.errno == errno.EPERM and where.startswith("unix:"):
        message += "; only root may give a file to another user, or to a group that it is not in"
    elif error.errno == errno.EACCES and not where.startswith("unix:"):
        message += "; ports below 1024 need CAP_NET_BIND_SERVICE"
    return Unavailable(message)


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _holder(where: str) -> str:
    """Who listens there, as far as this user may see."""
    port = where.rpartition(":")[2]
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            taken = connection.status == psutil.CONN_LISTEN and str(getattr(connection.laddr, "port", "")) == port
            if taken and connection.pid:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
