"""The pipes that a worker writes to until it is READY: passed on to the console, and their tail kept."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Final

from supervisor.daemon.console import Console
from supervisor.host import descriptors

TAIL_LINES: Final = 60
TAIL_BYTES: Final = 16 * 1024
_CHUNK: Final = 64 * 1024
_READS: Final = 4
"""Reads that empty a pipe of the default capacity, and don't follow a child of the worker's that writes for ever."""


class Output:
    """The read ends of one worker's stdout and stderr pipes; owns them."""

    def __init__(self, console: Console) -> None:
        """Make the pipes; the write ends are in ``write_ends`` until ``started``."""
        self._console = console
        self._loop = asyncio.get_running_loop()
        self._tail: deque[bytes] = deque()
        self._kept = 0
        self._open: dict[int, int] = {}
        self.write_ends: list[int] = []
        try:
            for target in (1, 2):
                read, write = descriptors.pipe()
                self._open[read] = target
                self.write_ends.append(write)
        except OSError:
            self.close()
            raise

    def started(self) -> None:
        """The worker has its copies of the write ends: close ours, and read."""
        descriptors.close(self.write_ends)
        self.write_ends.clear()
        for fd in self._open:
            self._loop.add_reader(fd, self._read, fd)

    def tail(self) -> str:
        """The last lines, after reading what is still in the pipes."""
        for fd in tuple(self._open):
            for _ in range(_READS):
                if not self._read(fd):
                    break
        lines = b"".join(self._tail).decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def close(self) -> None:
        descriptors.close(self.write_ends)
        self.write_ends.clear()
        for fd in tuple(self._open):
            self._end(fd)

    def _read(self, fd: int) -> bool:
        """Read once; False when there is nothing now, or nothing ever more."""
        if fd not in self._open:
            return False
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._end(fd)
            return False
        self._console.write(self._open[fd], data)
        self._tail.append(data)
        self._kept += len(data)
        while self._kept - len(self._tail[0]) >= TAIL_BYTES:
            self._kept -= len(self._tail.popleft())
        return True

    def _end(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._open[fd]
        descriptors.close([fd])
