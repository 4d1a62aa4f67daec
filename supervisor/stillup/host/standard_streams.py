"""stdout and stderr of a command, made so that an error in writing them is kept and raised nowhere.

What a command did is its exit code, whoever reads its output: a reader that left (EPIPE), a disk that is full (ENOSPC),
a terminal that is gone (EIO). It holds at the lowest level, so that it does for whatever writes, up to the interpreter,
which flushes both at its end and would exit with 120.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO


class LenientFile(io.FileIO):
    """A descriptor for writing; after the first error what is written goes nowhere. Does not own the descriptor."""

    error: OSError | None = None
    """Why not all was written."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        """Write some of it, as many bytes as are returned; all of it, if none can be written any more."""
        while self.error is None:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                self.error = error
            else:
                if written is not None:
                    return written
                self._wait()
        return memoryview(data).nbytes

    def _wait(self) -> None:
        """Wait for room: whoever shares the descriptor has made it non-blocking."""
        import select  # noqa: PLC0415 - hardly ever needed

        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        poll.poll()


def make_lenient() -> None:
    """Put such files below this process's stdout and stderr; what somebody has put in their place is left alone."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        if isinstance(getattr(stream.buffer, "raw", None), LenientFile):
            continue
        try:
            file = LenientFile(stream.fileno())
        except (OSError, ValueError):
            continue
        lenient = io.TextIOWrapper(
            io.BufferedWriter(file),
            encoding=stream.encoding,
            errors="backslashreplace" if stream.errors == "strict" else stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, lenient)
        setattr(sys, f"__{name}__", lenient)


def wait_for_reader_to_leave(stream: TextIO) -> bool:
    """Wait until nobody reads the pipe or socket any more that a stream leads to, which is an error of it then.

    Does not return where it leads to a file; False if it leads nowhere.
    """
    import select  # noqa: PLC0415 - for what goes on without end

    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # POLLERR and POLLHUP are told always (poll(2))
        poll.poll()
    except (OSError, ValueError):
        return False
    file = getattr(getattr(stream, "buffer", None), "raw", None)
    if isinstance(file, LenientFile) and file.error is None:
        file.error = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    return True


def flush() -> None:
    """Let out what was written; an error is kept (``LenientFile``)."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def unwritten(stream: TextIO | None) -> OSError | None:
    """Why not all of it was written; None if all was, as far as is known, or the stream is another one."""
    file = getattr(getattr(stream, "buffer", None), "raw", None)
    return file.error if isinstance(file, LenientFile) else None


def tell_unwritten() -> None:
    """Say on stderr that stdout did not take all; nothing of a reader that has left, as ``head`` does."""
    if sys.stdout is None:
        return
    sys.stdout.flush()
    error = unwritten(sys.stdout)
    if error is not None and error.errno != errno.EPIPE and sys.stderr is not None:
        sys.stderr.write(f"stillup: not all of the output was written: {os.strerror(error.errno or 0)}\n")
