"""Sockets that take long to close."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from stillup.host import descriptors


@contextlib.contextmanager
def slow_to_close(*, inside: bool) -> Iterator[socket.socket]:
    """A socket whose close waits for its peer, which does not read, or one that has such a one in its buffer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        slow = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    slow.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            slow.send(b"x" * 65536)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
    with peer:
        if not inside:
            yield slow
            return
        one, other = socket.socketpair()
        descriptors.send(one, b"x", [slow.fileno()])
        slow.close()
        one.close()
        yield other


@contextlib.contextmanager
def slow_backlog(listener: socket.socket) -> Iterator[None]:
    """Somebody waits in the backlog of that Unix listener who has sent, and left behind, what takes long to close."""
    with slow_to_close(inside=False) as slow:
        with socket.socket(listener.family, listener.type) as client:
            client.connect(listener.getsockname())
            descriptors.send(client, b"x", [slow.fileno()])
        slow.close()
        yield
