"""What a worker writes: its log, and what its app prints, in the log's one form and in the order in which it comes.

1. Until READY all of it goes by a pipe to the supervisor, which gives it its form and keeps the last of it.
2. From then on the worker writes itself, to the supervisor's own stderr, so that its log outlives the supervisor.
3. What is printed is a line of the log each, since ``sys.stdout`` and ``sys.stderr`` hand it on. What C code and child
   processes write to the descriptors 1 and 2 then is written as it is.
4. With ``--log-config``, and under ``--reload`` in a terminal, printed output is the app's own affair.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from stillup.asgi import log_records, tracebacks
from stillup.core.worker_settings import WorkerSettings
from stillup.host import journal, log_time
from stillup.wire import log_lines
from stillup.wire.log_lines import LogLine


class WorkerLog:
    """The log of one worker."""

    def __init__(self, settings: WorkerSettings, worker: str, *, color: bool) -> None:
        """Take ``sys.stdout`` and ``sys.stderr``, if what is printed is to be captured."""
        self._worker = worker
        self._captures = settings.log_capture
        self._form = settings.log_form
        self._journal: socket.socket | None = None
        self._is_ready = not self._captures
        self._stream: Any = sys.__stderr__
        self._color = color
        self._formatter = self._make_formatter()
        self._packed = log_records.PackedFormatter()
        self._handlers: list[_Handler] = []
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.reconfigure(line_buffering=True)  # a pipe's would keep it back
        if self._captures:
            sys.stdout = _Captured(sys.__stdout__, self)
            sys.stderr = _Captured(sys.__stderr__, self)

    def become(self, worker: str) -> None:
        """Be the log of that worker, in a process that was forked from one that had this log."""
        self._worker = worker
        self._formatter = self._make_formatter()

    def _make_formatter(self) -> logging.Formatter:
        if self._form == log_lines.JSON:
            return log_records.JsonFormatter(self._worker)
        return log_records.TextFormatter(self._worker, color=self._color)

    @property
    def is_ready(self) -> bool:
        """Whether lines are given their form here."""
        return self._is_ready

    def make_config(self) -> dict[str, Any] | None:
        """Make uvicorn's, and take what no handler takes.

        None where the app's people have one of their own, or the supervisor knows no form.
        """
        if not self._form:
            return None
        log_records.take_unhandled(self._make_handler())
        return log_records.log_config(self._make_handler)

    def ready(self) -> None:
        """From here on stdout and stderr are the supervisor's."""
        self._is_ready = True
        if self._form == log_lines.JOURNAL:
            self._journal = journal.connect()
        for handler in self._handlers:
            if handler.formatter is self._packed:  # else the app has given it another
                handler.setFormatter(self._formatter)

    def show_error(self, error: BaseException) -> None:
        """Say why the app cannot be served."""
        text = tracebacks.shown_error(error)
        if self._captures and not self._is_ready:
            text = log_lines.packed(LogLine(text.rstrip("\n"), "ERROR", "stillup")) + "\n"
        self._stream.write(text)
        self._stream.flush()

    def write(self, output: str) -> None:
        """Log a line of captured output, if there is anything in it. Never unpacked: a client may have sent it."""
        line = log_lines.captured(output)
        if line is None:
            return
        if self._journal is not None:
            self._send(line)
        elif self._form == log_lines.JSON:
            self._stream.write(log_lines.json(line, log_time.utc(time.time()), self._worker) + "\n")
        else:
            self._stream.write(log_lines.text(line, log_time.local(time.time()), self._worker) + "\n")

    def emit(self, record: logging.LogRecord) -> bool:
        """Log a record by the journal's own protocol; False if it is to be written."""
        if self._journal is None:
            return False
        self._send(log_records.line_of(record))
        return True

    def _send(self, line: LogLine) -> None:
        assert self._journal is not None  # noqa: S101 - for the type checker
        try:
            self._journal.send(journal.encode(journal.fields(line, self._worker, os.getpid())))
        except OSError:
            self._stream.write(log_lines.text(line, log_time.local(time.time()), self._worker) + "\n")

    def _make_handler(self) -> logging.Handler:
        handler = _Handler(self._stream, self.emit)
        handler.setFormatter(self._formatter if self._is_ready else self._packed)
        self._handlers.append(handler)
        return handler


class _Handler(logging.StreamHandler[Any]):
    """uvicorn's own, but for the journal."""

    def __init__(self, stream: Any, journaled: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__(stream)
        self._journaled = journaled

    def emit(self, record: logging.LogRecord) -> None:
        if not self._journaled(record):
            super().emit(record)


class _Captured:
    """Stands for ``sys.stdout`` or ``sys.stderr``: what is printed is logged, a line at a time."""

    def __init__(self, stream: Any, log: WorkerLog) -> None:
        self._stream = stream
        self._log = log
        self._rest = ""
        self._new_lock()
        os.register_at_fork(after_in_child=self._new_lock)

    def _new_lock(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal's handler may print in the middle of a print

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """No: what is meant for a terminal alone, such as colors, would be shown as escapes."""
        return False

    def write(self, text: str) -> int:
        if not self._log.is_ready:
            self._stream.write(log_lines.unmarked(text))
            return len(text)
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            while len(self._rest) > log_lines.LONGEST:
                lines.append(self._rest[: log_lines.LONGEST])
                self._rest = self._rest[log_lines.LONGEST :]
            for line in lines:
                self._log.write(line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """Log what has no line's end."""
        with self._lock:
            rest, self._rest = self._rest, ""
        if rest:
            self._log.write(rest)


def finish() -> None:
    """Log what was printed last."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Captured):
            stream.finish()
