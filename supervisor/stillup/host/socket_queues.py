"""What a connection's kernel buffers hold: what came and was not read, and what was sent and has not arrived."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios


def is_settled(sock: socket.socket) -> bool:
    """Whether nothing lies unread here, and the peer's kernel has acknowledged all that was sent, the end included.

    Of a Unix socket: whether the peer has read it (SIOCOUTQ, SIOCINQ; tcp(7), unix(7)). A socket that has ended is.
    """
    try:
        return not _ask(sock, termios.TIOCOUTQ) and not _ask(sock, termios.FIONREAD)
    except (OSError, ValueError):  # ValueError: it is closed here
        return True


def _ask(sock: socket.socket, request: int) -> int:
    answer: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), request, bytes(4)))[0]
    return answer
