"""What the supervisor writes to its stdout and stderr, written by a thread of its own.

Whoever reads these may stop reading; a full pipe must stop this thread and not the supervisor. The descriptors are
never made non-blocking: workers share them, and would lose output without a word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from supervisor.host import descriptors, journal

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


class JournalHandler(logging.Handler):
    """Log records to the journal, what they are about in fields; owns its socket for the life of the process."""

    def __init__(self, console: Console, journal: socket.socket) -> None:
        super().__init__()
        self._console = console
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"MESSAGE": self.format(record), "PRIORITY": str(_priority(record.levelno))}
        fields |= {"SYSLOG_IDENTIFIER": "stillup", "SYSLOG_PID": str(record.process), "LOGGER": record.name}
        fields |= {f"STILLUP_{name.upper()}": str(value) for name, value in _about(record).items()}
        self._console.write(self._journal.fileno(), journal.encode(fields))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat()
        line = {"at": at, "level": record.levelname.lower(), "message": super().format(record), **_about(record)}
        return msgspec.json.encode(line).decode()


def _about(record: logging.LogRecord) -> Mapping[str, object]:
    """What a record is about, such as a generation and a worker."""
    about: Mapping[str, object] = getattr(record, "about", {})
    return about


def _priority(level: int) -> int:
    """Of syslog (syslog(3)): 3 error, 4 warning, 6 informational, 7 debug."""
    return {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}.get(level, 2)


class _Formatter(logging.Formatter):
    def __init__(self, *, color: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._color or record.levelno < logging.WARNING:
            return text
        return f"\x1b[{'31' if record.levelno >= logging.ERROR else '33'}m{text}\x1b[0m"


def set_up_logging(console: Console, level: int, form: str) -> None:
    """Send every log record of this process through the console.

    ``form`` is ``json``, ``text`` or ``auto``: text, or with fields of its own where stderr is the journal.
    """
    handler: logging.Handler = LogHandler(console)
    if form == "auto" and journal.is_stderr() and (sock := journal.connect()) is not None:
        handler = JournalHandler(console, sock)
        handler.setFormatter(logging.Formatter("%(message)s"))
    elif form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_Formatter(color=os.isatty(2)))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stillup").setLevel(level)
