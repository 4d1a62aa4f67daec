"""The pipe that a worker writes to until it is READY, and a hook to its end: passed on to the log, its tail kept.

It is stdout and stderr in one, so that the order is kept. The worker may keep it open, and write without end: a pause
follows each read, and nothing is read while there are lines that are not logged yet.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Final

from stillup.daemon.state.console import MOST_OF_WORKERS, Console
from stillup.host import descriptors
from stillup.wire import log_lines

TAIL_LINES: Final = 60
TAIL_BYTES: Final = 16 * 1024
_CHUNK: Final = 64 * 1024
PAUSE: Final = 0.005
"""Seconds until a pipe is read again, however little was in it: 12 MB a second is as much as there is."""
MOST_LINES: Final = 500
"""Lines that are given their form in one turn of the loop, at 2 microseconds each."""
_READS: Final = 4
"""Reads that empty a pipe of the default capacity, and don't follow a child of the worker's that writes for ever."""


class BootOutput:
    """The read end of one worker's pipe; owns it."""

    def __init__(self, console: Console, worker: str = "", *, captured: bool = False, packed: bool = True) -> None:
        """Make the pipe; the write ends for stdout and stderr are in ``write_ends`` until ``started``.

        Args:
            console: has the log.
            worker: by which name the log has it.
            captured: whether lines are given the log's form; else what is written goes to stderr as it is.
            packed: whether a line may be one of a worker's own log (``wire.log_lines``); else each is output.
        """
        self._console = console
        self._worker = worker
        self._captured = captured
        self._packed = packed
        self._loop = asyncio.get_running_loop()
        self._tail: deque[bytes] = deque()
        self._kept = 0
        """Bytes of it."""
        self._rest = b""
        """The beginning of a line whose end has not come."""
        self._lines: deque[bytes] = deque()
        """Lines that are not logged yet."""
        self._fd = -1
        self.write_ends: list[int] = []
        try:
            self._fd, write = descriptors.pipe()
            self.write_ends.append(write)
            self.write_ends.append(descriptors.duplicate(write))
        except OSError:
            self.close()
            raise

    def started(self) -> None:
        """The worker has its copies of the write ends: close ours, and read."""
        descriptors.close(self.write_ends)
        self.write_ends.clear()
        self._listen()

    def read_out(self) -> None:
        """Log what is in the pipe now: all that was written before a moment ago."""
        for _ in range(_READS):
            if not self._read():
                break
        self._log_lines(_READS * MOST_LINES)

    def tail(self) -> str:
        """The last lines, after reading what is still in the pipe."""
        for _ in range(_READS):
            if not self._read():
                break
        self._end_line()
        self._lines = deque(self._lines, MOST_LINES)
        self._log_lines(MOST_LINES)
        lines = b"".join(self._tail)[-TAIL_BYTES:].decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def close(self) -> None:
        descriptors.close(self.write_ends)
        self.write_ends.clear()
        self._end()

    def _listen(self) -> None:
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._ready)

    def _ready(self) -> None:
        self._loop.remove_reader(self._fd)
        self._read()
        self._log_lines(MOST_LINES)
        self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._log_lines(MOST_LINES)
        if self._lines:
            self._loop.call_later(PAUSE, self._go_on)
        else:
            self._listen()

    def _read(self) -> bool:
        """Read once; False when there is nothing now, or nothing ever more."""
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._end_line()
            self._end()
            return False
        if self._captured:
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(filter(None, lines))
            if len(self._rest) > _CHUNK:
                self._end_line()
        else:
            self._console.write(2, data, MOST_OF_WORKERS)
            self._keep(data)
        return True

    def _end_line(self) -> None:
        """What has come of a line is all that comes."""
        rest, self._rest = self._rest, b""
        if rest:
            self._lines.append(rest)

    def _log_lines(self, most: int) -> None:
        for _ in range(most):
            if not self._lines:
                break
            output = self._lines.popleft()
            if len(output) > log_lines.LONGEST and not (self._packed and log_lines.is_packed(output)):
                self._lines.appendleft(output[log_lines.LONGEST :])
                output = output[: log_lines.LONGEST]
            said = output.decode(errors="backslashreplace")
            line = log_lines.from_pipe(said) if self._packed else log_lines.captured(said)
            if line is not None:
                self._console.log(line, self._worker, most=MOST_OF_WORKERS)
                self._keep(line.message.encode(errors="backslashreplace") + b"\n")

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._kept += len(data)
        while self._kept - len(self._tail[0]) >= TAIL_BYTES:
            self._kept -= len(self._tail.popleft())

    def _end(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            descriptors.close([self._fd])
            self._fd = -1
