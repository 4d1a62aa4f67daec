"""The one loop: take an event, decide, write down, perform. The fleet is its only state.

Nothing is performed before the fleet that orders it is on record, so that the next supervisor knows of everything that
this one may have done. A request that cannot be written down is refused; for whatever just happens the show goes on.
While a disk does not answer, events are dealt with and requests wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from supervisor.core.commands import Command, Exit, Reexec
from supervisor.core.events import BeatsDue, Event, ReloadAsked, Reported, RollbackAsked, ScaleAsked, StopAsked
from supervisor.core.model import Fleet
from supervisor.core.step import Decision, step
from supervisor.daemon.writer import SLOW
from supervisor.errors import Refused

logger = logging.getLogger("stillup")

PATIENCE: Final = 10.0
"""Seconds that a request waits for a disk that does not answer."""


class Effects(Protocol):
    """Whoever performs the commands. Must not wait: what takes time becomes an event when it is done."""

    def perform(self, command: Command) -> None: ...


class Keeper(Protocol):
    """Keeps the fleet on record."""

    async def save(self, fleet: Fleet, *, asked: bool) -> str:
        """Write a fleet down; why that cannot be, or nothing. ``asked``: it is refused then."""

    async def caught_up(self, patience: float) -> bool:
        """Whether a disk that did not answer in time has done so within so many seconds from now."""


class Engine:
    """Owns the fleet."""

    def __init__(self, fleet: Fleet, keeper: Keeper, changed: Callable[[Fleet, Fleet], None] = lambda *_: None) -> None:
        """Begin with that fleet; ``changed`` is told what it was and what it has become."""
        self.fleet = fleet
        self._keeper = keeper
        self._changed = changed
        self.asked_to_stop = False
        """Whether a stop was asked for, be it decided on or not yet."""
        self._queue: asyncio.Queue[tuple[Event | None, asyncio.Future[Fleet] | None]] = asyncio.Queue()
        self._watchers: list[tuple[Callable[[Fleet], bool], asyncio.Future[Fleet]]] = []

    def submit(self, event: Event) -> None:
        """Let an event happen; nobody waits for what comes of it."""
        self._put(event, None)

    async def ask(self, event: Event) -> Fleet:
        """Let an event happen; the fleet right after it.

        Raises:
            Refused: it has no place in the fleet as it is, or is a request that cannot be written down.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + PATIENCE
        while True:
            answer: asyncio.Future[Fleet] = loop.create_future()
            self._put(event, answer)
            try:
                return await answer
            except _NotWritten as refusal:
                left = ends - loop.time()
                if refusal.trouble != SLOW or left <= 0 or not await self._keeper.caught_up(left):
                    raise

    async def turn(self) -> None:
        """Return once everything that was submitted before has been dealt with: a loop that is stuck does not."""
        answer: asyncio.Future[Fleet] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((None, answer))
        await answer

    def _put(self, event: Event, answer: asyncio.Future[Fleet] | None) -> None:
        self.asked_to_stop |= isinstance(event, StopAsked)
        self._queue.put_nowait((event, answer))

    async def until(self, holds: Callable[[Fleet], bool]) -> Fleet:
        """Wait until something holds of the fleet; the first fleet of which it does."""
        if holds(self.fleet):
            return self.fleet
        watcher: asyncio.Future[Fleet] = asyncio.get_running_loop().create_future()
        self._watchers.append((holds, watcher))
        try:
            return await watcher
        finally:
            # Who stops waiting is forgotten now: the next event may be a long time off.
            self._watchers = [(other, one) for other, one in self._watchers if one is not watcher]

    async def run(self, effects: Effects) -> Exit | Reexec:
        """Run until a command ends this program; that command. May be called again, if what it asks for failed."""
        while True:
            event, answer = await self._queue.get()
            if event is None:
                _settle(answer, self.fleet)
                continue
            decision = self._decide(event, answer)
            if decision is None:
                continue
            asked = answer is not None and isinstance(event, ReloadAsked | RollbackAsked | ScaleAsked)
            # What is merely heard or looked at changes nothing that is on record, unless something is done about it.
            merely = isinstance(event, Reported | BeatsDue) and not decision.commands
            trouble = "" if merely else await self._keeper.save(decision.fleet, asked=asked)
            if trouble and asked:
                _settle(answer, error=_NotWritten(trouble))
                continue
            if not merely:
                self._changed(self.fleet, decision.fleet)
            self._become(decision.fleet, answer)
            for command in decision.commands:
                if isinstance(command, Exit | Reexec):
                    return command
                try:
                    effects.perform(command)
                except Exception:
                    # A bug, or a system call that failed where none was expected to: the other commands still count.
                    logger.exception("could not perform %r", command)

    def _decide(self, event: Event, answer: asyncio.Future[Fleet] | None) -> Decision | None:
        try:
            return step(self.fleet, event, asyncio.get_running_loop().time())
        except Refused as refusal:
            logger.debug("%s refused: %s", type(event).__name__, refusal)
            _settle(answer, error=refusal)
        except Exception as error:
            # A bug of ours in one decision; the fleet is as it was, and what serves goes on.
            logger.exception("no decision on %r", event)
            _settle(answer, error=error)
        return None

    def _become(self, fleet: Fleet, answer: asyncio.Future[Fleet] | None) -> None:
        self.fleet = fleet
        _settle(answer, fleet)
        waiting = []
        for holds, watcher in self._watchers:
            if watcher.done():  # whoever waited has gone
                continue
            if holds(fleet):
                watcher.set_result(fleet)
            else:
                waiting.append((holds, watcher))
        self._watchers = waiting


class _NotWritten(Refused):
    """A request that could not be written down."""

    def __init__(self, trouble: str) -> None:
        message = f"it cannot be written down, and so is not done: {trouble}; what serves goes on"
        super().__init__(message, code="unavailable")
        self.trouble = trouble


def _settle(answer: asyncio.Future[Fleet] | None, fleet: Fleet | None = None, error: Exception | None = None) -> None:
    if answer is None or answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    elif fleet is not None:
        answer.set_result(fleet)
