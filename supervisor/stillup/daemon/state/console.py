"""What the supervisor writes to its stdout and stderr, or to the journal, written by a thread of its own.

Their reader may stop reading; a full pipe must stop this thread and not the supervisor. The descriptors are
never made non-blocking: workers share them, and would lose output without a word. That thread is waited for in parts,
as ``thread_wait`` has it: a machine that stands still is no reader that does not read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping
from typing import Final

from stillup.core.amounts import amount
from stillup.daemon.state.thread_wait import PARTS
from stillup.host import descriptors, journal, log_time
from stillup.wire import log_lines
from stillup.wire.log_lines import LogLine

MOST: Final = 4 * 1024 * 1024
"""Bytes that may wait to be written; what comes on top is dropped, and counted."""
MOST_OF_WORKERS: Final = MOST // 2
"""What is passed on of workers may fill no more of that: the rest is for the supervisor's own lines."""
_COLORS: Final = {"WARNING": 33, "ERROR": 31, "CRITICAL": 31}


class Console:
    """A queue of bytes for stdout and stderr, and the thread that writes them."""

    def __init__(self) -> None:
        self._form = log_lines.TEXT
        self._color = False
        self._journal: socket.socket | None = None
        self._queue: queue.SimpleQueue[tuple[int, bytes] | threading.Event | None] = queue.SimpleQueue()
        self._waiting = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    def write(self, fd: int, data: bytes, most: int = MOST) -> None:
        """Have it written to 1 or 2, unless more than ``most`` would wait with it; never waits."""
        with self._lock:
            if self._waiting + len(data) > most:
                self._dropped += len(data)
                return
            self._waiting += len(data)
        self._queue.put((fd, data))

    def set_form(self, form: str, *, color: bool = False) -> None:
        """Give lines that form from here on; text, if it is the journal's and that does not listen."""
        self._form, self._color = form, color
        self._journal = journal.connect() if form == log_lines.JOURNAL else None

    def log(self, line: LogLine, worker: str = "", at: float | None = None, most: int = MOST) -> None:
        """Have a line logged; never waits.

        Args:
            line: what it says.
            worker: whose it is; empty for the supervisor's own.
            at: seconds since the epoch; None: now.
            most: as ``write`` has it.
        """
        at = time.time() if at is None else at
        if self._journal is not None:
            self.write(self._journal.fileno(), journal.encode(journal.fields(line, worker, os.getpid())), most)
            return
        if self._form == log_lines.JSON:
            text = log_lines.json(line, log_time.utc(at), worker)
        else:
            text = log_lines.text(line, log_time.local(at), worker)
            if self._color and (color := _COLORS.get(line.level)):
                text = f"\x1b[{color}m{text}\x1b[0m"
        self.write(2, (text + "\n").encode(errors="backslashreplace"), most)

    def flush(self, seconds: float = 2.0) -> None:
        """Wait until all that was given so far is written, but not for longer than that."""
        written = threading.Event()
        self._queue.put(written)
        for _ in range(PARTS):
            written.wait(seconds / PARTS)

    def close(self, seconds: float = 2.0) -> None:
        """Write what is left, as far as that is possible in so many seconds."""
        self._queue.put(None)
        for _ in range(PARTS):
            self._thread.join(seconds / PARTS)

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
                self.log(LogLine(f"{amount(dropped, 'byte')} of output dropped: nobody read it", "WARNING"))


class LogHandler(logging.Handler):
    """The supervisor's own records, to the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in log_lines.LEVELS else "INFO"
        line = LogLine(self.format(record), level, record.name, dict(_about(record)))
        self._console.log(line, at=record.created)


def _about(record: logging.LogRecord) -> Mapping[str, object]:
    """What a record is about, such as a generation and a worker."""
    about: Mapping[str, object] = getattr(record, "about", {})
    return about


def set_up_logging(console: Console, level: int, form: str, *, color: bool = False) -> None:
    """Send every log record of this process through the console, in the log's form (``wire.log_lines``)."""
    console.set_form(form, color=color)
    handler = LogHandler(console)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stillup").setLevel(level)
