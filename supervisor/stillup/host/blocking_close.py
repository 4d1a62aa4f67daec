"""Closing what another process has sent, or what may have such descriptors in its buffer: in threads of their own.

close(2) may take as long as the sender of a descriptor likes, if ours is the last copy: a TCP socket with SO_LINGER
waits for its peer to read, be it non-blocking or not (socket(7)), a file of FUSE for its server. The buffer of a Unix
socket may hold more of them, which are closed with it (unix(7)).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterable
from typing import Final

from stillup.host.processes import block_handled

MOST: Final = 8
"""Threads: so many closes that don't end hold up no others."""
PATIENCE: Final = 1.0
"""Seconds that one may take, if others wait: then it is interrupted, as far as its file lets itself be (not FUSE's)."""
INTERRUPT: Final = signal.SIGURG
AT_ONCE: Final = struct.pack("ii", 0, 0)
"""``struct linger``: close(2) does not wait."""

_closes: queue.SimpleQueue[int] = queue.SimpleQueue()
_lock = threading.Lock()
_threads = 0
_open = 0
"""Descriptors that are to be closed, or are being closed."""
_began: dict[int, float] = {}
"""By thread, when the close began that it is at; seconds on the monotonic clock."""


def let_interrupt() -> None:
    """Let closes be interrupted from now on: a signal that is ignored interrupts nothing. For the main thread."""
    signal.signal(INTERRUPT, lambda *_: None)


def close_in_thread(fds: Iterable[int]) -> None:
    """Close them soon; never waits for one. What a socket has not delivered yet is left to the kernel."""
    global _threads, _open  # noqa: PLW0603 - descriptors are the process's, not an object's
    for fd in fds:
        with _lock:
            _open += 1
            if _open > _threads and _threads < MOST:
                # Not an executor's: the interpreter waits for those at its end, and a close may have none.
                with contextlib.suppress(RuntimeError):  # those that there are will do
                    threading.Thread(target=_close, name="close", daemon=True).start()
                    _threads += 1
        _closes.put(fd)
    _interrupt_slow()


def close_socket_in_thread(sock: socket.socket) -> None:
    """Close a socket soon; it is of no use any more. Idempotent."""
    fd = sock.detach()
    if fd >= 0:
        close_in_thread([fd])


def hang_up(sock: socket.socket) -> None:
    """The same with a connection, of which we have the only copy: its peer is told at once. Idempotent."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    close_socket_in_thread(sock)


def close_at_once(sock: socket.socket) -> None:
    """Close a listener that was shared: one of those who have it may have made a connection of it that lingers.

    A Unix one soon, in a thread: whoever waits in its backlog may have sent what takes long to close. Idempotent.
    """
    if sock.family == socket.AF_UNIX:
        close_socket_in_thread(sock)
    elif sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            _do_not_linger(sock.fileno())
        sock.close()


def _interrupt_slow() -> None:
    with _lock:
        now = time.monotonic()
        for thread, began in _began.items():
            if now - began > PATIENCE:
                signal.pthread_kill(thread, INTERRUPT)


def _close() -> None:
    global _open  # noqa: PLW0603
    block_handled()
    own = threading.get_ident()
    while True:
        fd = _closes.get()
        with _lock:
            _began[own] = time.monotonic()
        with contextlib.suppress(OSError):
            _do_not_linger(fd)
        with contextlib.suppress(OSError):
            os.close(fd)
        with _lock:
            del _began[own]
            _open -= 1


def _do_not_linger(fd: int) -> None:
    """Most often that is all that is needed. A listener's setting is the app's own, for each of its connections."""
    sock = socket.socket(fileno=fd)
    try:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    finally:
        sock.detach()
