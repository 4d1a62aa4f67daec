"""Signals, what they ask for, and whatever else goes on beside the engine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Final

from stillup.core.events import Event, ScaleAsked, StopAsked
from stillup.core.outcomes import REFUSALS_TO_NOTE
from stillup.daemon.loop.engine import Engine
from stillup.daemon.loop.reload_request import request_reload
from stillup.daemon.state.disk import Disk
from stillup.errors import Refused
from stillup.host import terminal
from stillup.host.processes import HANDLED

logger = logging.getLogger("stillup")

HANDLING: Final = 3
"""Turns of the loop from a signal that has come to its handler's work (asyncio reads a pipe, then calls, then runs)."""


class Signals:
    """Asks the engine for what signals mean."""

    def __init__(self) -> None:
        # Who starts us with SIGHUP ignored, as nohup does, means that the terminal's end is not ours.
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self.had_terminal = terminal.is_ours()
        self._tasks: dict[asyncio.Task[None], signal.Signals | None] = {}

    def serve(
        self,
        engine: Engine,
        disk: Disk,
        reexec: Callable[[], Awaitable[None]],
        reopen: Callable[[], Awaitable[None]],
    ) -> None:
        """Ask this engine; ``reexec`` replaces the supervisor's program, ``reopen`` opens the log file anew."""
        self._engine = engine
        self._disk = disk
        self._reexec = reexec
        self._reopen = reopen

    def take(self) -> None:
        """Act on them from now on; on those that have come meanwhile, too."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: self._hang_up,
            signal.SIGTTIN: lambda: self._scale(+1),
            signal.SIGTTOU: lambda: self._scale(-1),
            signal.SIGUSR1: lambda: self.begin(self._reopen_by_signal(), signal.SIGUSR1),
            signal.SIGUSR2: lambda: self.begin(self._reexec_by_signal()),
        }
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            handlers[number] = partial(self._stop, number)
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def _stop(self, number: signal.Signals) -> None:
        """A stop; whoever is at the terminal does not wait for its announcement."""
        at_once = number is signal.SIGINT
        self._engine.submit(StopAsked(number.name, insist=True, at_once=at_once))

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
            await request_reload(self._engine, self._disk.resolve, why, hold=self._disk.hold)
        except Refused as refusal:
            if refusal.code not in REFUSALS_TO_NOTE:  # of these the feed tells
                logger.error("no reload (%s): %s", why, refusal)  # noqa: TRY400 - not ours
        except Exception:
            # A bug, but not one that may end hot reload for good.
            logger.exception("no reload (%s)", why)

    async def _reexec_by_signal(self) -> None:
        try:
            await self._reexec()
        except Refused as refusal:
            logger.error("SIGUSR2: our program is not replaced: %s", refusal)  # noqa: TRY400 - not ours

    async def _reopen_by_signal(self) -> None:
        try:
            await self._reopen()
        except Refused as refusal:
            logger.error("SIGUSR1: the log goes on in the same file: %s", refusal)  # noqa: TRY400 - not ours

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
