"""The thread that starts processes: as programs of their own, or forked from a template, or from a preloader.

Starting a program waits for its disk. One thread keeps the order, and so the slots' numbers in the logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stillup.core.states import Birth
from stillup.daemon.workers.program import Program
from stillup.daemon.workers.templates import Forker, Templates, ask_for, fork_asked
from stillup.errors import PeerError
from stillup.host import terminal
from stillup.host.process_start import spawn
from stillup.host.processes import Process, block_handled

logger = logging.getLogger("stillup")


class ProcessStarter:
    """Starts processes. Owns its thread and the templates."""

    def __init__(self) -> None:
        """Begin with nothing started."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spawn", initializer=block_handled)
        self._templates = Templates()
        """For that thread alone."""

    async def start(
        self, program: Program, outputs: Sequence[int], stdin: int | None = None, forker: Forker | None = None
    ) -> tuple[Process, Birth]:
        """Start it, from ``forker`` if that can fork. The descriptors stay the caller's.

        Raises:
            OSError: it could not be started; and whatever else the thread raises.
        """
        starts = partial(_start, self._templates, program, tuple(outputs), stdin, forker)
        return await asyncio.get_running_loop().run_in_executor(self._thread, starts)

    def close_socket(self, sock: socket.socket) -> None:
        """Close what the thread may be using now."""
        self._thread.submit(sock.close)

    def close(self) -> None:
        """Start nothing more, and end the templates; what was started stays."""
        self._thread.submit(self._templates.close)
        self._thread.shutdown(wait=False)


def _start(
    templates: Templates, program: Program, outputs: Sequence[int], stdin: int | None, forker: Forker | None
) -> tuple[Process, Birth]:
    """Start it, or have it forked. Blocks; raises what ``spawn`` does."""
    with contextlib.ExitStack() as stack:
        if program.has_terminal:
            stdin = terminal.open_stdin()
            stack.callback(os.close, stdin)
        if forker is not None and (process := _fork_preloaded(forker, program, outputs)) is not None:
            return process, Birth.PRELOADED
        if not program.template:
            templates.close()  # of those that were of use before, none is any more
        elif (process := templates.fork(program, stdin, *outputs)) is not None:
            return process, Birth.FORKED_WARM if program.warm else Birth.FORKED
        environment = {**program.environment, **program.own_environment}
        process = spawn(program.argv, environment, *outputs, stdin=stdin, account=program.account)
        return process, Birth.SPAWNED


def _fork_preloaded(forker: Forker, program: Program, outputs: Sequence[int]) -> Process | None:
    """A worker from a preloader; None if that cannot fork, which it is not asked to again."""
    if forker.is_broken:
        return None
    try:
        said, process = fork_asked(forker, ask_for(program), outputs)
        if process is None:
            raise PeerError(f"it said {said}")
    except (PeerError, OSError) as error:
        forker.is_broken = True
        logger.warning("%s is started by itself: its preloader forks none: %s", program.argv[-1], error or "no answer")
        return None
    return process
