"""TCP ports that no other test is given, and what waits at one: both are the kernel's, and its own time."""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import socket
import struct
import time
from pathlib import Path

DEADLINE = 20.0
LOWEST = 10_000
_GIVEN: set[int] = set()
_UNACKED = struct.Struct("24xI")
"""In ``struct tcp_info`` (linux/tcp.h); of a listener it is how many connections can be accepted."""


def own_port() -> int:
    """A port that is free of every address, and is none of those that the kernel gives by itself (ip(7)).

    One of these that was free a moment ago may be another test's by now. None is given out twice.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    while True:
        port = LOWEST + secrets.randbelow(first - LOWEST)
        if port not in _GIVEN and _is_free(port):
            _GIVEN.add(port)
            return port


def _is_free(port: int) -> bool:
    with contextlib.ExitStack() as stack:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            sock = stack.enter_context(socket.socket(family))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True


def accept(listener: socket.socket) -> socket.socket:
    """The next connection of a listener that does not block; its client may hear of it a moment earlier."""
    assert select.select([listener], [], [], DEADLINE)[0], "nobody has connected"
    return listener.accept()[0]


def wait_for_backlog(listener: socket.socket, count: int) -> None:
    """Wait until so many connections can be accepted; their clients may hear of them a moment earlier."""
    ends = time.monotonic() + DEADLINE
    while (waiting := _waiting(listener)) != count:
        assert time.monotonic() < ends, f"{waiting} connections, not {count}"
        time.sleep(0.001)


def _waiting(listener: socket.socket) -> int:
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.size)
    waiting: int = _UNACKED.unpack(info)[0]
    return waiting
