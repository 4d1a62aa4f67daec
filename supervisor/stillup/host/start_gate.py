"""A gate that a process waits behind: the reading end of a pipe is its stdin, and a byte lets it through.

An end of file in place of the byte, since nobody has the writing end any more, tells it to end.
"""

from __future__ import annotations

import os


class StartGate:
    """Owns both ends of the pipe, which are close-on-exec."""

    def __init__(self) -> None:
        """Make it, shut.

        Raises:
            OSError: there is no descriptor left.
        """
        self._reader: int | None
        self._writer: int | None
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)

    @property
    def stdin(self) -> int | None:
        """What the process is to have as its stdin; None once it has it."""
        return self._reader

    def started(self) -> None:
        """Close our copy of what the process has as its stdin, or never will."""
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    def open(self) -> None:
        """Let the process through, and close the gate behind it. Nothing happens once it has ended or gone."""
        if self._writer is None:
            return
        try:
            os.write(self._writer, b"\n")
        except BrokenPipeError:  # its end is on the way
            pass
        finally:
            self.shut()

    def shut(self) -> None:
        """Have the process end that was not let through."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def close(self) -> None:
        """Let go of both ends."""
        self.started()
        self.shut()
