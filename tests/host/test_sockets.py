"""Listening sockets of every kind, made and received."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from stillup.errors import PeerError, Unavailable, UsageError
from stillup.host import sockets
from stillup.host.sockets import Listener, check_owner, describe, open_listener, receive_listener
from stillup.wire.address import ANY, Bind, TcpAddress, parse_bind
from stillup.wire.handoff_messages import ListenerInfo
from tests.host.conftest import are_open_soon, open_descriptors
from tests.host.tcp_ports import accept, own_port

pytestmark = pytest.mark.usefixtures("no_leak")


def has_ipv6() -> bool:
    """Whether this machine has a v6 loopback address."""
    with socket.socket(socket.AF_INET6) as sock, contextlib.suppress(OSError):
        sock.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no v6 loopback address")


@contextlib.contextmanager
def opened(bind: str, backlog: int = 16) -> Iterator[Listener]:
    """A listener, as a ``--bind`` asks for it."""
    listener = open_listener(parse_bind(bind), backlog)
    try:
        yield listener
    finally:
        listener.close()


def serves(listener: Listener) -> bool:
    """Whether a connection to the listener's address comes in there, without blocking on either side."""
    with socket.socket(listener.socket.family, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(listener.socket.getsockname())
        with accept(listener.socket) as accepted:
            accepted.sendall(b"x")
            return client.recv(1) == b"x"


def is_ours(listener: Listener) -> bool:
    """Whether the socket is what every listener is: not blocking, close-on-exec, of a stream, listening."""
    sock = listener.socket
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return not sock.getblocking() and not sock.get_inheritable() and sock.type == socket.SOCK_STREAM and listening == 1


def test_ipv4() -> None:
    """A v4 address with port 0 gets a port from the kernel, and the info says which."""
    with opened("web=127.0.0.1:0") as listener:
        port = listener.socket.getsockname()[1]
        assert port > 0
        assert listener.info == ListenerInfo("web", socket.AF_INET, f"127.0.0.1:{port}")
        assert is_ours(listener)
        assert serves(listener)


def test_name() -> None:
    """A name that has addresses of both kinds gets its v4 one, as with uvicorn."""
    with opened("localhost:0") as listener:
        assert listener.socket.family == socket.AF_INET
        assert serves(listener)


@needs_ipv6
def test_ipv6() -> None:
    """A v6 address stands in brackets, and its port stays free for a v4 socket beside it."""
    port = own_port()
    with opened(f"[::]:{port}") as listener:
        assert listener.info == ListenerInfo(f"[::]:{port}", socket.AF_INET6, f"[::]:{port}")
        assert is_ours(listener)
        assert serves(listener)
        with opened(f"0.0.0.0:{port}") as beside:
            assert serves(beside)


@needs_ipv6
def test_every_interface() -> None:
    """As uvicorn's own supervisor has it: who connects by IPv4 is served by the v6 socket, too."""
    listener = open_listener(Bind("web", TcpAddress("::", 0, is_dual=True)), 16)
    with listener.socket:
        port = listener.socket.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=10):
                accept(listener.socket).close()


def test_every_interface_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no IPv6, IPv4 is all there is."""
    monkeypatch.setattr(sockets, "_has_ipv6", lambda: False)
    listener = open_listener(Bind("web", TcpAddress("::", 0, is_dual=True)), 16)
    with listener.socket:
        assert listener.socket.getsockname()[0] == ANY


def test_backlog() -> None:
    """The backlog is the one that was asked for: one connection more than it waits, a further one is not taken."""
    with opened("unix:@" + secrets.token_hex(8), backlog=0) as listener, contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        second = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        first.connect(listener.socket.getsockname())
        with pytest.raises(BlockingIOError):
            second.connect(listener.socket.getsockname())


def test_reuse() -> None:
    """A port whose last connection this side has closed can be bound again at once."""
    bind = f"127.0.0.1:{own_port()}"
    with opened(bind) as listener, socket.create_connection(listener.socket.getsockname(), timeout=10) as client:
        accept(listener.socket).close()
        assert client.recv(1) == b""
    with opened(bind) as listener:
        assert serves(listener)


def test_abstract() -> None:
    """An abstract name is listened on without a file, and cannot be had twice."""
    name = f"unix:@stillup-{secrets.token_hex(8)}"
    with opened(name) as listener:
        assert listener.info == ListenerInfo(name, socket.AF_UNIX, name)
        assert listener.file is None
        assert is_ours(listener)
        assert serves(listener)
        with pytest.raises(Unavailable, match=f"cannot bind {name}: address already in use"):
            open_listener(parse_bind(name), 1)


def test_inherited() -> None:
    """A listening socket that we were started with is taken as it is, and made like every other."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        given.set_inheritable(True)
        with opened(f"fd:{given.fileno()}") as listener:
            assert listener.socket.fileno() == given.fileno()
            assert is_ours(listener)
            assert serves(listener)
        given.detach()


def test_inherited_wrong() -> None:
    """A descriptor that is no listening stream socket is refused, and is left open, since it is not ours."""
    with (
        socket.socket() as unbound,
        socket.socket(type=socket.SOCK_DGRAM) as datagram,
        Path("/dev/null").open() as file,
    ):
        for given in (unbound, datagram):
            with pytest.raises(Unavailable, match="it is not a listening stream socket"):
                open_listener(parse_bind(f"fd:{given.fileno()}"), 1)
        with pytest.raises(Unavailable, match="socket operation on non-socket; start stillup with a listening socket"):
            open_listener(parse_bind(f"fd:{file.fileno()}"), 1)
        for kept in (unbound, datagram, file):
            os.fstat(kept.fileno())
    with pytest.raises(Unavailable, match="bad file descriptor"):
        open_listener(parse_bind("fd:999999"), 1)


def test_unknown_host() -> None:
    """A host that does not exist is the caller's mistake, and the message names it."""
    with pytest.raises(UsageError, match=r"host 'nowhere\.invalid' is not known"):
        open_listener(parse_bind("nowhere.invalid:0"), 1)


def test_foreign_address() -> None:
    """An address that this machine has not got cannot be had."""
    with pytest.raises(Unavailable, match=r"cannot bind 192\.0\.2\.1:0: cannot assign requested address"):
        open_listener(parse_bind("192.0.2.1:0"), 1)


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=needs_ipv6)])
def test_port_in_use(host: str) -> None:
    """Of a port in use the message names the process that listens there."""
    with opened(f"{host}:0") as listener:
        port = listener.socket.getsockname()[1]
        who = re.escape(f"by pid {os.getpid()} ({psutil.Process().name()})")
        with pytest.raises(Unavailable, match=f"address already in use {who}"):
            open_listener(parse_bind(f"{host}:{port}"), 1)


def test_owner_must_exist() -> None:
    """A user or a group that does not exist is the caller's mistake, found before anything is bound."""
    for option, name in (("user", "nobody-of-that-name"), ("group", "nothing-of-that-name")):
        bind = parse_bind(f"unix:/nowhere/at/all.sock,{option}={name}")
        with pytest.raises(UsageError, match=name):
            check_owner(bind)
        with pytest.raises(UsageError, match=name):
            open_listener(bind, 1)
    check_owner(parse_bind("unix:/nowhere/at/all.sock,user=root"))
    check_owner(parse_bind("unix:/nowhere/at/all.sock,user=54321,group=54321"))
    check_owner(parse_bind("127.0.0.1:0"))


# What is received


def copy(sock: socket.socket) -> int:
    return os.dup(sock.fileno())


@pytest.mark.parametrize(
    "bind",
    ["127.0.0.1:0", pytest.param("[::1]:0", marks=needs_ipv6), "unix:@stillup-{}", "unix:{}/here.sock"],
)
def test_received(bind: str, tmp_path: Path) -> None:
    """A copy of a listener of any kind is taken for what its info says, and accepts."""
    bind = bind.format(tmp_path if "/" in bind else secrets.token_hex(8))
    with opened(bind) as listener:
        taken = Listener(bind, receive_listener(copy(listener.socket), listener.info))
        assert serves(taken)
        taken.socket.close()
        assert serves(listener)


def test_received_something_else() -> None:
    """What is no socket, does not listen, is of another kind or listens elsewhere is a PeerError, and is closed."""
    with (
        opened("127.0.0.1:0") as listener,
        opened("127.0.0.1:0") as other,
        opened("unix:@stillup-" + secrets.token_hex(8)) as unix,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets,
        socket.socket() as bound,
        Path("/dev/null").open() as file,
    ):
        packets.bind("")
        packets.listen()
        bound.bind(("127.0.0.1", 0))
        info = listener.info
        with pytest.raises(PeerError, match="what came is no socket"):
            receive_listener(os.dup(file.fileno()), info)
        for sock in (other.socket, unix.socket):
            with pytest.raises(PeerError, match=re.escape(f"not the listening socket {info.address}")):
                receive_listener(copy(sock), info)
        for sock in (packets, bound):
            with pytest.raises(PeerError, match="not the listening socket"):
                receive_listener(copy(sock), describe(info.name, sock))


def test_received_of_a_name_that_nobody_can_say() -> None:
    """An abstract name is any bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0\xff" + secrets.token_bytes(8))
        listener.listen()
        with pytest.raises(PeerError, match="not the listening socket unix:@x"):
            receive_listener(copy(listener), ListenerInfo("web", int(socket.AF_UNIX), "unix:@x"))


def test_received_of_another_family() -> None:
    """What has no address of ours is no listener of ours, though it listens; here one of virtual machines."""
    try:
        listener = socket.socket(socket.AF_VSOCK)
    except OSError:
        pytest.skip("this kernel has no such sockets")
    with listener:
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen()
        with pytest.raises(PeerError, match="not the listening socket"):
            receive_listener(copy(listener), ListenerInfo("web", int(socket.AF_VSOCK), "127.0.0.1:80"))


@pytest.mark.parametrize("error", [UnicodeError, RuntimeError])
def test_whatever_is_wrong_with_it_it_is_closed(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """In a thread, since the close may take long; not by the garbage collector."""
    monkeypatch.setattr(sockets, "describe", Mock(side_effect=error))
    with opened("127.0.0.1:0") as listener:
        before = open_descriptors()
        with pytest.raises(error) as raised:
            receive_listener(copy(listener.socket), ListenerInfo("web", int(socket.AF_INET), "127.0.0.1:80"))
        assert are_open_soon(before), "while the exception has the socket"
        del raised


def test_received_a_connection() -> None:
    """A connection that was accepted from the listener has its address, and is not taken for the listener."""
    with opened("127.0.0.1:0") as listener, socket.create_connection(listener.socket.getsockname()) as client:
        with accept(listener.socket) as accepted:
            assert describe(listener.name, accepted) == listener.info
            with pytest.raises(PeerError):
                receive_listener(copy(accepted), listener.info)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
