"""What the supervisor writes to its stdout and stderr, written by a thread of its own.

Whoever reads these may stop reading; a full pipe must stop this thread and not the supervisor. The descriptors are
never made non-blocking: workers share them, and would lose output without a word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from typing import Final

from supervisor.host import descriptors

MOST: Final = 4 * 1024 * 1024
"""Bytes that may wait to be written; what comes on top is dropped, and counted."""


class Console:
    """A queue of bytes for stdout and stderr, and the thread that writes them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, bytes] | threading.Event | None] = queue.SimpleQueue()
        self._waiting = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def write(self, fd: int, data: bytes) -> None:
        """Have it written to 1 or 2; never waits."""
        with self._lock:
            if self._waiting + len(data) > MOST:
                self._dropped += len(data)
                return
            self._waiting += len(data)
        self._queue.put((fd, data))

    def flush(self, seconds: float = 2.0) -> None:
        """Wait until all that was given so far is written, but not for longer than that."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(seconds)

    def close(self, seconds: float = 2.0) -> None:
        """Write what is left, as far as that is possible in so many seconds."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            fd, data = item
            with contextlib.suppress(OSError):  # nobody there to read it, and nobody to tell
                descriptors.write_all(fd, data)
            with self._lock:
                self._waiting -= len(item[1])
                dropped, self._dropped = self._dropped, 0
            if dropped:
                self._queue.put((2, f"[stillup: {dropped} bytes of output were dropped: nobody read it]\n".encode()))


class LogHandler(logging.Handler):
    """Log records to stderr through the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.write(2, (self.format(record) + "\n").encode(errors="backslashreplace"))


class _Formatter(logging.Formatter):
    def __init__(self, *, color: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._color or record.levelno < logging.WARNING:
            return text
        return f"\x1b[{'31' if record.levelno >= logging.ERROR else '33'}m{text}\x1b[0m"


def set_up_logging(console: Console, level: int) -> None:
    """Send every log record of this process through the console."""
    handler = LogHandler(console)
    handler.setFormatter(_Formatter(color=os.isatty(2)))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stillup").setLevel(level)
