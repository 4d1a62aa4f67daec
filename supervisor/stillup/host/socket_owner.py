"""Whose the other end of a TCP connection is, if that is on this host (sock_diag(7), NETLINK_SOCK_DIAG).

The kernel knows of each socket the uid of who made it, and nobody has to be root to ask. It is asked by addresses and
ports, as both ends see them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from stillup.errors import StillupError

NETLINK_SOCK_DIAG: Final = 4
"""Not in Python's socket module by this name."""
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_REQUEST: Final = 1
NLMSG_ERROR: Final = 2
_HEADER: Final = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length, type, flags, sequence number, port (netlink(7))."""
_ASKED: Final = struct.Struct("=BBBxI")
"""``struct inet_diag_req_v2`` before the socket's id: family, protocol, extensions, states."""
_TOLD: Final = struct.Struct("=BBBB")
"""``struct inet_diag_msg`` before it: family, state, timer, retransmits."""
_PORTS: Final = struct.Struct("!HH")
_ADDRESS: Final = 16
"""Bytes of an address in ``struct inet_diag_sockid``, of which IPv4 takes four."""
_ANY_INTERFACE: Final = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
"""The rest of it: the interface, and INET_DIAG_NOCOOKIE."""
_OWNER: Final = struct.Struct("=IIIII")
"""``struct inet_diag_msg`` after it: expires, bytes to be read and to be sent, uid, inode."""
_ANY_STATE: Final = 0xFFFFFFFF
_ROOM: Final = 4096
"""Bytes; an answer without extensions has 124."""

Address = tuple[str, int]


def owner(end: Address, other: Address) -> int | None:
    """The uid of who made the socket at this end of a TCP connection over IPv4, of which we have the other end.

    None: no process has it. It was closed, or is on another host. Of a socket that is closed and still has something to
    send the kernel says uid 0, which would make anybody root who sends a request and hangs up; it has no inode then.

    Raises:
        StillupError: the kernel does not say.
    """
    asked = b"".join(
        (
            _ASKED.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _ANY_STATE),
            _PORTS.pack(end[1], other[1]),
            socket.inet_aton(end[0]).ljust(_ADDRESS, b"\0"),
            socket.inet_aton(other[0]).ljust(_ADDRESS, b"\0"),
            _ANY_INTERFACE,
        )
    )
    head = _HEADER.pack(_HEADER.size + len(asked), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.send(head + asked)
            answer = kernel.recv(_ROOM)
    except OSError as error:
        raise _unsaid(error.errno or 0) from error
    return _owner(answer, end[1], other[1])


def _owner(answer: bytes, port: int, other_port: int) -> int | None:
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -number == errno.ENOENT:
            return None
        raise _unsaid(-number)
    # Where there is no such connection the kernel answers with a socket that listens at the port.
    if kind != SOCK_DIAG_BY_FAMILY or _PORTS.unpack_from(answer, _HEADER.size + _TOLD.size) != (port, other_port):
        return None
    place = _HEADER.size + _TOLD.size + _PORTS.size + 2 * _ADDRESS + len(_ANY_INTERFACE)
    _, _, _, uid, inode = _OWNER.unpack_from(answer, place)
    return int(uid) if inode else None


def _unsaid(number: int) -> StillupError:
    return StillupError(f"the kernel does not say whose a connection is (sock_diag): {os.strerror(number)}")
