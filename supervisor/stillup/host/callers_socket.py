"""Connections of whoever may connect: what is sent beside the bytes is refused, or closed where nobody waits for it.

A descriptor that nobody takes out of a Unix socket's buffer is closed by whoever reads the bytes beside it, or closes
the socket, and that may take as long as its sender likes (``host.blocking_close``).
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from stillup.host import descriptors
from stillup.host.blocking_close import close_in_thread

SO_PASSRIGHTS: Final = 83
"""Linux 6.16; not in Python's socket module."""
_AT_A_TIME: Final = 1 << 16
"""Bytes."""


def refuse_descriptors(sock: socket.socket) -> None:
    """Have the kernel let nobody send descriptors to what is accepted on that listener, where it can (Linux 6.16)."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)


class CallersSocket(socket.socket):
    """A connection that is read and closed without waiting for what came beside its bytes."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data, ancillary, _, _ = self.recvmsg(size, descriptors.ANCILLARY, flags | socket.MSG_CMSG_CLOEXEC)
        if ancillary:
            close_in_thread(descriptors.rights(ancillary))
        return data

    def close(self) -> None:
        if self.fileno() >= 0 and self.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_RDWR)  # nothing more comes into its buffer
                while self.recv(_AT_A_TIME, socket.MSG_DONTWAIT):
                    pass
        super().close()
