"""Processes that the supervisor starts, from the order to their end: their pipes, pidfds and groups.

What a process has started goes with it, as far as that is in its process group: it is sent SIGTERM when its leader has
ended, then SIGKILL.

What is started is a ``Program``, a value that is built elsewhere (``worker_program``); here nothing is known of it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from stillup.core.states import HOW_UNKNOWN, Birth
from stillup.daemon.state.console import Console
from stillup.daemon.workers.boot_output import BootOutput
from stillup.daemon.workers.process_starter import ProcessStarter
from stillup.daemon.workers.program import Program
from stillup.daemon.workers.templates import Forker
from stillup.host import terminal
from stillup.host.process_groups import has_others, is_known_by_pidfd, outlives_its_leader, signal_group
from stillup.host.processes import DUMP_STACKS, Process, reap_threads

logger = logging.getLogger("stillup")


GROUP_GRACE: Final = 2.0
"""Seconds from SIGTERM to SIGKILL for those whose leader has ended."""
SOON: Final = 0.02
"""Seconds between two looks at who is left."""
LATER: Final = 1.0
"""Seconds between two such looks at most, once they were killed: a look goes through all processes of the host."""
KILL_PATIENCE: Final = 30.0
"""Seconds from SIGKILL until those are not waited for any more: a disk that hangs may keep them, or another user."""
REAP_THREADS: Final = 1.0
"""Seconds after SIGKILL, and between two looks at a process that it has not ended yet."""
REAP_AGAIN: Final = 5.0
"""Seconds between two attempts to reap one whose end another process has yet to hear of."""


class _Child(msgspec.Struct):
    """A process, and the pipes of its boot; one that another supervisor started has none here."""

    process: asyncio.Future[Process]
    output: BootOutput | None = None
    has_terminal: bool = False


class ChildProcesses:
    """Each by a serial that is never used twice. Owns their pidfds and pipes."""

    def __init__(
        self,
        console: Console,
        ended: Callable[[int, str, str], None],
        starter: ProcessStarter,
        *,
        with_group: bool = False,
    ) -> None:
        """Begin with none.

        Args:
            console: gets what they write until ``BootOutput`` ends.
            starter: starts them; the caller's.
            ended: called with the serial of a process that has ended, how (``Process.reap``), and its last output.
            with_group: whether that is called only when nobody is left in its group, either.
        """
        self._console = console
        self._on_end = ended
        self._with_group = with_group
        self._loop = asyncio.get_running_loop()
        self._starter = starter
        self._children: dict[int, _Child] = {}
        self._left: dict[Process, asyncio.TimerHandle] = {}
        """Those that have ended, and whose groups have not."""
        self._untold: dict[Process, Callable[[], None]] = {}
        """Of these: what tells of their end, when their group has ended."""
        self._traced: dict[Process, asyncio.TimerHandle] = {}
        """Those that have ended, and cannot be reaped yet."""
        self._modes: terminal.Modes | None = None
        """Of the terminal, before the first that has it as its stdin."""

    def prepare(
        self, serial: int, name: str = "", *, captured: bool = False, packed: bool = True
    ) -> asyncio.Future[Process]:
        """Make the pipe of a process that is to be started; it will be there, unless the future is cancelled.

        ``name``, ``captured`` and ``packed``: how the log has what it writes (``BootOutput``).

        Raises:
            OSError: there is no descriptor left.
        """
        output = BootOutput(self._console, name, captured=captured, packed=packed)
        self._children[serial] = child = _Child(self._loop.create_future(), output)
        return child.process

    async def start(
        self, serial: int, program: Program, stdin: int | None = None, forker: Forker | None = None
    ) -> tuple[Process, Birth]:
        """Start what was prepared. ``stdin`` and ``forker`` stay the caller's, who says ``forget`` if that fails.

        Raises:
            OSError: it could not be started; and whatever else ``ProcessStarter.start`` raises.
        """
        child = self._children[serial]
        output = child.output
        assert output is not None  # noqa: S101 - for the type checker: prepare() made it
        child.has_terminal = program.has_terminal
        if program.has_terminal and self._modes is None:
            self._modes = terminal.modes()
        process, birth = await self._starter.start(program, output.write_ends, stdin, forker)
        child.process.set_result(process)
        output.started()
        self._loop.add_reader(process.pidfd, self._ended, serial)
        return process, birth

    def adopt(self, serial: int, process: Process) -> None:
        """Take over a process that another supervisor started; it is ours from here on."""
        child = _Child(self._loop.create_future())
        child.process.set_result(process)
        self._children[serial] = child
        self._loop.add_reader(process.pidfd, self._ended, serial)

    def pid(self, serial: int) -> int:
        """Of a process; 0 while there is none."""
        return next((pid for pid, known in self._pids() if known == serial), 0)

    def is_known(self, pid: int) -> bool:
        """Whether that is one of these."""
        return any(pid == one for one, _ in self._pids())

    def _pids(self) -> list[tuple[int, int]]:
        """The pid of each that was started, and its serial."""
        there = [(child.process, serial) for serial, child in self._children.items() if child.process.done()]
        return [(process.result().pid, serial) for process, serial in there if not process.cancelled()]

    def with_terminal(self) -> list[Process]:
        """Those that have our terminal as their stdin."""
        has_it = [child.process for child in self._children.values() if child.has_terminal and child.process.done()]
        return [process.result() for process in has_it if not process.cancelled()]

    def read_out(self, serial: int) -> None:
        """Log what a process has written so far, before what comes of it."""
        if (child := self._children.get(serial)) is not None and child.output is not None:
            child.output.read_out()

    def signal_all(self, serial: int, number: signal.Signals) -> None:
        """Send a signal to all in a process's group. Nothing happens if there is no process, or none yet."""
        child = self._children.get(serial)
        if child is not None and child.process.done() and number != signal.SIGKILL:
            signal_group(child.process.result(), number)
        else:
            self.signal(serial, number)

    def signal(self, serial: int, number: signal.Signals) -> None:
        """Send a signal. Nothing happens if there is no process, or none yet."""
        child = self._children.get(serial)
        # A process that does not exist yet is signalled when it does: the fleet gives the order again.
        if child is not None and child.process.done():
            process = child.process.result()
            if number == signal.SIGKILL:
                signal_group(process, number)
                self._loop.call_later(REAP_THREADS, self._reap_threads, serial)
            process.signal(number)

    def _reap_threads(self, serial: int) -> None:
        """As long as one that was killed has not ended, reap its threads that wait for us; or find that all have."""
        if (child := self._children.get(serial)) is None:
            return
        process = child.process.result()
        reap_threads(process.pid)
        if process.has_ended():
            self._ended(serial)
        else:
            self._loop.call_later(REAP_THREADS, self._reap_threads, serial)

    def dump_stacks(self, serial: int) -> None:
        """Have a process write where each of its threads is, if it can."""
        child = self._children.get(serial)
        # An app may have taken the signal for itself, or its handler away; without one it would kill.
        if child is not None and child.process.done() and not child.process.result().signal_if_caught(DUMP_STACKS):
            logger.warning("where worker pid %d hangs cannot be shown", child.process.result().pid)

    def forget(self, serial: int) -> None:
        """A process has ended, or could not be started: close its pipes."""
        child = self._children.pop(serial)
        if child.output is not None:
            child.output.close()
        if not child.process.done():
            child.process.cancel()

    def close(self) -> None:
        """Let go of everything; no process is left by now, or it is another supervisor's from here on."""
        for child in self._children.values():
            if child.output is not None:
                child.output.close()
        self._untold.clear()
        self.kill_groups()
        for process, again in self._traced.items():
            again.cancel()
            signal_group(process, signal.SIGKILL)
            process.close()

    def _ended(self, serial: int) -> None:
        """A pidfd has become readable: its process is dead."""
        child = self._children[serial]
        process = child.process.result()
        # Where the kernel can't signal a group whose leader is reaped, this is the last moment.
        signal_group(process, signal.SIGTERM if is_known_by_pidfd(process) else signal.SIGKILL)
        how = process.reap()
        self._loop.remove_reader(process.pidfd)
        if how is None:
            # Who traces it (ptrace(2)) hears of its end first, and need not listen: it has ended all the same.
            how = HOW_UNKNOWN
            self._traced[process] = self._loop.call_later(GROUP_GRACE, self._reap_later, process)
        elif outlives_its_leader(process) and (how != HOW_UNKNOWN or has_others(process)):
            self._watch_group(process, self._loop.time() + GROUP_GRACE)
        else:
            process.close()
        terminal.restore(self._modes)
        tail = child.output.tail() if child.output is not None else ""
        self.forget(serial)
        if self._with_group and process in self._left:
            self._untold[process] = partial(self._on_end, serial, how, tail)
        else:
            self._on_end(serial, how, tail)

    def _reap_later(self, process: Process) -> None:
        """Reap it as soon as that can be. Its group is killed: whom it waits for may be in there."""
        signal_group(process, signal.SIGKILL)
        if process.reap() is None:
            self._traced[process] = self._loop.call_later(REAP_AGAIN, self._reap_later, process)
        else:
            del self._traced[process]
            process.close()

    async def end_groups(self) -> None:
        """Wait until those are gone whose leaders have ended; GROUP_GRACE seconds after that they are killed."""
        while self._left:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(SOON)

    def kill_groups(self) -> None:
        """Kill those whose leaders have ended, now."""
        for process in tuple(self._left):
            self._kill_group(process)

    def _watch_group(self, process: Process, until: float, wait: float = SOON) -> None:
        """Let go of a group when it has ended, be it by a kill, or KILL_PATIENCE seconds after that.

        A leader that is no child of ours is in it until somebody else has reaped it: a moment, mostly.

        Args:
            process: the group's leader.
            until: when it is killed.
            wait: seconds to the next look, once it was.
        """
        now = self._loop.time()
        if now < until and outlives_its_leader(process):
            self._left[process] = self._loop.call_later(SOON, self._watch_group, process, until)
            return
        if process in self._untold and signal_group(process, signal.SIGKILL) and has_others(process):
            # Killed, and not gone yet: who is told of its end relies on that.
            if now < until + KILL_PATIENCE:
                again = min(2 * wait, LATER)
                self._left[process] = self._loop.call_later(wait, self._watch_group, process, until, again)
                return
            logger.error(
                "the process group %d does not end, though it was killed %g s ago: it is not waited for any more",
                process.pid,
                KILL_PATIENCE,
            )
        self._kill_group(process)

    def _kill_group(self, process: Process) -> None:
        if (watch := self._left.pop(process, None)) is not None:
            watch.cancel()
        signal_group(process, signal.SIGKILL)
        process.close()
        if (tell := self._untold.pop(process, None)) is not None:
            tell()
