"""Ctrl-Z and ``fg`` while a debugger in a worker reads from the terminal.

The terminal stops the process group in its foreground, which is ours; workers lead sessions of their own, and one that
reads would take what is typed for the shell. So who may read is stopped with us, and goes on when we are in the
foreground again: not by ``bg`` alone. Workers of a service whose terminal nobody reads serve on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from typing import Final

from stillup.host import terminal
from stillup.host.processes import Process

PAUSE: Final = 0.2
"""Seconds between two looks at whether we are in the foreground again."""


class JobControl:
    """Acts on SIGTSTP (signal(7)), for as long as the loop runs."""

    def __init__(self, readers: Callable[[], Iterable[Process]]) -> None:
        """``readers``: the workers that have the terminal as their stdin."""
        self._readers = readers
        self._loop = asyncio.get_running_loop()
        self._modes = terminal.modes()
        self._take()

    def _take(self) -> None:
        self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)

    def _suspend(self) -> None:
        is_read = terminal.is_read()
        stopped = tuple(self._readers()) if is_read else ()
        for process in stopped:
            process.signal(signal.SIGSTOP)
        edited = terminal.modes()
        if is_read:
            terminal.set_modes(self._modes)
        # The default action: it spares a process group that nobody could continue.
        self._loop.remove_signal_handler(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGTSTP)
        self._take()  # continued
        if stopped:
            self._go_on(stopped, edited)

    def _go_on(self, stopped: tuple[Process, ...], modes: terminal.Modes | None) -> None:
        if not terminal.is_stdin() and terminal.is_there():
            self._loop.call_later(PAUSE, self._go_on, stopped, modes)
            return
        terminal.set_modes(modes)
        for process in stopped:
            if not process.has_ended():
                process.signal(signal.SIGCONT)
