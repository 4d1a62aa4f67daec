"""Listening sockets: made once, by the supervisor, and recognised again by a process that receives one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
from typing import Final

import msgspec

from stillup.errors import PeerError, Unavailable, UsageError
from stillup.host.adoption_queue import cookie
from stillup.host.blocking_close import close_in_thread, close_socket_in_thread
from stillup.host.callers_socket import refuse_descriptors
from stillup.host.socket_files import UnixFile, take_path, try_path
from stillup.wire.address import AbstractAddress, ActivatedAddress, Bind, InheritedAddress, TcpAddress, UnixAddress
from stillup.wire.handoff_messages import ListenerInfo
from stillup.wire.role_rules import parse_number

SO_NETNS_COOKIE: Final = 71
"""Linux 5.14; not in Python's socket module."""
SIOCUNIXFILE: Final = 0x89E0
"""Opens the file that a Unix socket is bound to, with O_PATH (``linux/un.h``)."""

_FAMILIES: Final = frozenset({socket.AF_UNIX, socket.AF_INET, socket.AF_INET6})
"""Of listeners; a socket of any other has another form of address."""


class Listener(msgspec.Struct, frozen=True):
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


def try_bind(bind: Bind) -> socket.socket | None:
    """See that a bind could be had now, without anybody being able to connect to it meanwhile.

    Of an inherited socket nothing is seen: who starts the service passes it on.

    Returns: what has the address until it is closed, so that another bind is seen to want it, too; None for a path.

    Raises:
        Unavailable: it could not; the message says why.
        UsageError: the host, the user or the group does not exist.
    """
    match bind.address:
        case TcpAddress():
            return _bind_tcp(bind.address)
        case UnixAddress(path):
            try_path(path, *_owner(bind.address))
        case AbstractAddress(name):
            return _bind_abstract(name)
        case InheritedAddress() | ActivatedAddress():
            pass
    return None


def check_owner(bind: Bind) -> None:
    """See that the user and the group of a socket file exist.

    Raises:
        UsageError: one does not.
    """
    if isinstance(bind.address, UnixAddress):
        _owner(bind.address)


def group_of(bind: Bind) -> int | None:
    """The group that is named for a socket file, if one is.

    Raises:
        UsageError: it does not exist.
    """
    gid = _owner(bind.address)[1] if isinstance(bind.address, UnixAddress) else -1
    return gid if gid >= 0 else None


def describe(name: str, sock: socket.socket) -> ListenerInfo:
    """Derive name, family and address from the socket itself, which is a Unix or an internet one.

    A Unix name that is no UTF-8 is none that anybody could say.
    """
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = f"unix:@{os.fsdecode(where[1:])}" if isinstance(where, bytes) else f"unix:{where}"
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
        close_in_thread([fd])
        raise PeerError(f"listener '{info.name}': what came is no socket") from error
    with contextlib.ExitStack() as undo:
        undo.callback(close_socket_in_thread, sock)
        if sock.family not in _FAMILIES or not is_listening(sock) or describe(info.name, sock) != info:
            raise PeerError(f"listener '{info.name}': what came is not the listening socket {info.address}")
        undo.pop_all()
    return sock


def is_of_our_network(sock: socket.socket) -> bool:
    """Whether a socket is in the network namespace in which we make ours; taken for granted before Linux 5.14."""
    with socket.socket(socket.AF_UNIX) as ours:
        try:
            return _network_cookie(sock) == _network_cookie(ours)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            return True


def is_behind_its_path(sock: socket.socket) -> bool:
    """Whether the file that a Unix socket's path names is the one that it was bound to, so that clients come to it.

    Its path is what it was called where it was bound, be that in a mount namespace of its own. Taken for granted where
    the kernel does not tell us (SIOCUNIXFILE: Linux 4.13, CAP_NET_ADMIN).
    """
    path = sock.getsockname()
    if sock.family != socket.AF_UNIX or not isinstance(path, str) or not path:
        return True
    try:
        bound = fcntl.ioctl(sock, SIOCUNIXFILE)
    except OSError:
        return True
    try:
        return os.path.samestat(os.fstat(bound), os.lstat(path))
    except OSError:
        return False
    finally:
        os.close(bound)


def _network_cookie(sock: socket.socket) -> bytes:
    """The kernel's number of a socket's network namespace, never used twice."""
    return sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)


def is_listening(sock: socket.socket) -> bool:
    """Whether connections can be accepted on it."""
    if sock.type != socket.SOCK_STREAM:
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _bind_tcp(address: TcpAddress) -> socket.socket:
    if address.is_dual and not _has_ipv6():
        address = TcpAddress("0.0.0.0", address.port)  # noqa: S104 - every interface is what was asked for
    # Of a str, the codec for names that are not ASCII would be loaded: 7 ms.
    host = address.host.encode() if address.host.isascii() else address.host
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UsageError(f"cannot bind {address}: host '{address.host}' is not known ({error.strerror})") from error
    # A name may have both kinds of address; IPv4 is what uvicorn's own supervisor takes.
    family, kind, protocol, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that 0.0.0.0:80 and [::]:80 can be bound side by side.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not address.is_dual)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise _unavailable(str(address), error) from error
    return sock


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


def _bind_abstract(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    refuse_descriptors(sock)
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
    sock, file = take_path(address.path, address.mode, *_owner(address), backlog=backlog)
    return Listener(name, sock, file)


def _owner(address: UnixAddress) -> tuple[int, int]:
    """The numbers of the user and the group that are named, or are numbers already; -1 is the one that there is."""
    uid = gid = -1
    try:
        if address.user is not None:
            number = parse_number(address.user)
            uid = pwd.getpwnam(address.user).pw_uid if number is None else number
        if address.group is not None:
            number = parse_number(address.group)
            gid = grp.getgrnam(address.group).gr_gid if number is None else number
    except KeyError as error:
        raise UsageError(f"cannot bind {address}: {error.args[0]}") from error
    return uid, gid


def _unavailable(where: str, error: OSError) -> Unavailable:
    message = f"cannot bind {where}: {_reason(error)}"
    if error.errno == errno.EADDRINUSE:
        message += _who_listens(where)
    elif error.errno == errno.EACCES:
        message += "; ports below 1024 need CAP_NET_BIND_SERVICE"
    return Unavailable(message)


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _who_listens(where: str) -> str:
    """Who listens there, as far as this user may see."""
    import psutil  # noqa: PLC0415 - 8 ms that a start does not wait for

    port = where.rpartition(":")[2]
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            taken = connection.status == psutil.CONN_LISTEN and str(getattr(connection.laddr, "port", "")) == port
            if taken and connection.pid:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
