"""Signals, what they ask for, and whatever else goes on beside the engine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

from supervisor.core.events import Event, ReloadAsked, ScaleAsked, StopAsked
from supervisor.daemon.disk import Disk
from supervisor.daemon.engine import Engine
from supervisor.errors import Refused
from supervisor.host import terminal
from supervisor.host.processes import HANDLED

logger = logging.getLogger("stillup")

HANDLING: Final = 3
"""Turns of the loop from a signal that has come to its handler's work (asyncio reads a pipe, then calls, then runs)."""


class Signals:
    """Asks the engine for what signals mean."""

    def __init__(self) -> None:
        # Who starts us with SIGHUP ignored, as nohup does, means that the terminal's end is not ours.
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self.had_terminal = terminal.is_there() and not self._ignores_hangup
        self._tasks: dict[asyncio.Task[None], signal.Signals | None] = {}

    def serve(self, engine: Engine, disk: Disk, reexec: Callable[[], Awaitable[None]]) -> None:
        """Ask this engine; ``reexec`` replaces the supervisor's program."""
        self._engine = engine
        self._disk = disk
        self._reexec = reexec

    def take(self) -> None:
        """Act on them from now on; on those that have come meanwhile, too."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: self._hang_up,
            signal.SIGTTIN: lambda: self._scale(+1),
            signal.SIGTTOU: lambda: self._scale(-1),
            signal.SIGUSR1: lambda: logger.info("SIGUSR1: stillup keeps no log files open; there is nothing to reopen"),
            signal.SIGUSR2: lambda: self.begin(self._reexec_by_signal()),
        }
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            handlers[number] = lambda number=number: self._engine.submit(StopAsked(number.name, insist=True))  # type: ignore[misc]
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def _hang_up(self) -> None:
        """SIGHUP: a reload, unless it is our terminal that has hung up."""
        if self.had_terminal and not terminal.is_there():
            self._engine.submit(StopAsked("the terminal hung up"))
        else:
            self.begin(self.reload("SIGHUP"), signal.SIGHUP)

    def _scale(self, by: int) -> None:
        number = signal.SIGTTIN if by > 0 else signal.SIGTTOU
        self.begin(self._ask(ScaleAsked(by, relative=True)), number)

    def begin(self, work: Coroutine[None, None, None], number: signal.Signals | None = None) -> None:
        """Let something go on beside the engine; ``number``: the signal that asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = number
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the supervisor ended", exc_info=error)

    async def reload(self, why: str) -> None:
        """Reload; what is in the way is logged."""
        try:
            release = await self._disk.resolve()
        except Refused as refusal:
            logger.error("no reload (%s): %s", why, refusal)  # noqa: TRY400 - not ours
            return
        except Exception:
            # A bug, but not one that may end hot reload for good.
            logger.exception("no reload (%s)", why)
            return
        await self._ask(ReloadAsked(release, why))

    async def _reexec_by_signal(self) -> None:
        try:
            await self._reexec()
        except Refused as refusal:
            logger.error("SIGUSR2: our program is not replaced: %s", refusal)  # noqa: TRY400 - not ours

    async def _ask(self, event: Event) -> None:
        try:
            await self._engine.ask(event)
        except Refused as refusal:
            logger.warning("refused: %s", refusal)

    async def block(self) -> None:
        """Let those that come from now on wait, and those that have come be begun."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        for _ in range(HANDLING):
            await asyncio.sleep(0)

    def hand_on(self) -> None:
        """Leave those that the engine has not heard of to the next program, which finds them pending (execve(2))."""
        for task, number in self._tasks.items():
            if number is not None and not task.done():
                task.cancel()
                os.kill(os.getpid(), number)
        if self._ignores_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def end(self) -> None:
        """Take none any more, and end what goes on: nothing may interrupt the way out, and it is short."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        for task in self._tasks:
            task.cancel()
