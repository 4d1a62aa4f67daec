"""The one loop: take an event, decide, write down, perform. The fleet is its only state.

Nothing is performed before the fleet that orders it is on record, so that the next supervisor knows of everything that
this one may have done. A request that cannot be written down is refused; what merely happens is decided all the same.
While a disk does not answer, events are dealt with and requests wait; but nobody is told to lead and no hook is let run
until the record says so: of those two another supervisor would begin a second one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from stillup.core.commands import BeginLeading, Command, Exit, LetHookRun, Reexec
from stillup.core.events import Event, HeartbeatsDue, ReloadAsked, Reported, RollbackAsked, ScaleAsked
from stillup.core.model import Fleet
from stillup.core.step import Decision, step
from stillup.daemon.loop.event_queue import Answer, EventQueue, NotWritten
from stillup.daemon.state.writer_thread import SLOW
from stillup.errors import Refused

logger = logging.getLogger("stillup")


class Effects(Protocol):
    """Performs the commands. Must not wait: what takes time becomes an event when it is done."""

    def perform(self, command: Command) -> None: ...


class FleetWriter(Protocol):
    """Keeps the fleet on record."""

    async def save(self, fleet: Fleet, *, asked: bool) -> str:
        """Write a fleet down; why that cannot be, or nothing. ``asked``: it is refused then."""


class Engine:
    """Owns the fleet. Nothing but ``step`` makes another one of it."""

    def __init__(
        self,
        fleet: Fleet,
        queue: EventQueue,
        fleet_writer: FleetWriter,
        changed: Callable[[Fleet, Fleet], None] = lambda *_: None,
    ) -> None:
        """Begin with that fleet.

        Args:
            fleet: made by ``core.rebuild``; every later one is made by ``step``.
            queue: has the events.
            fleet_writer: has each fleet written down before its commands are performed.
            changed: is told what the fleet was and what it has become.
        """
        self._fleet = fleet
        self._queue = queue
        self._fleet_writer = fleet_writer
        self._changed = changed
        self._watchers: list[tuple[Callable[[Fleet], bool], asyncio.Future[Fleet]]] = []
        self._held_back: list[Command] = []
        """What waits for the record, which is behind."""

    @property
    def fleet(self) -> Fleet:
        """The fleet as it is."""
        return self._fleet

    def submit(self, event: Event) -> None:
        """As ``EventQueue.submit``."""
        self._queue.submit(event)

    async def ask(self, event: Event) -> Fleet:
        """As ``EventQueue.ask``."""
        return await self._queue.ask(event)

    async def until(self, holds: Callable[[Fleet], bool]) -> Fleet:
        """Wait until something holds of the fleet; the first fleet of which it does."""
        if holds(self._fleet):
            return self._fleet
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
            event, answer = await self._queue.next()
            if event is None:
                _settle(answer, self._fleet)
                continue
            decision = self._decide(event, answer)
            if decision is None:
                continue
            asked = answer is not None and isinstance(event, ReloadAsked | RollbackAsked | ScaleAsked)
            # What is merely heard or looked at changes nothing that is on record, unless something is done about it, or
            # a worker has let go of leading while nobody else would: the next supervisor is not to count on that one.
            merely = (
                isinstance(event, Reported | HeartbeatsDue)
                and not decision.commands
                and decision.fleet.term is self._fleet.term
                and not self._held_back
            )
            trouble = "" if merely else await self._fleet_writer.save(decision.fleet, asked=asked)
            if trouble and asked:
                _settle(answer, error=NotWritten(trouble))
                continue
            self._changed(self._fleet, decision.fleet)
            self._become(decision.fleet, answer)
            for command in self._due(decision.commands, behind=trouble == SLOW):
                if isinstance(command, Exit | Reexec):
                    return command
                try:
                    effects.perform(command)
                except Exception:
                    # A bug, or a system call that failed where none was expected to: the other commands still count.
                    logger.exception("could not perform %r", command)

    def _decide(self, event: Event, answer: Answer | None) -> Decision | None:
        try:
            return step(self._fleet, event, asyncio.get_running_loop().time())
        except Refused as refusal:
            logger.debug("%s refused: %s", type(event).__name__, refusal)
            _settle(answer, error=refusal)
        except Exception as error:
            # A bug of ours in one decision; the fleet is as it was, and what serves goes on.
            logger.exception("no decision on %r", event)
            _settle(answer, error=error)
        return None

    def _due(self, commands: Sequence[Command], *, behind: bool) -> Sequence[Command]:
        """Those to be performed now; ``behind``: the record does not say yet what these come of."""
        if not behind:
            due, self._held_back = [*self._held_back, *commands], []
            return due
        waiting = [command for command in commands if isinstance(command, BeginLeading | LetHookRun)]
        self._held_back += waiting
        return [command for command in commands if command not in waiting]

    def _become(self, fleet: Fleet, answer: Answer | None) -> None:
        self._fleet = fleet
        _settle(answer, fleet)
        waiting = []
        for holds, watcher in self._watchers:
            if watcher.done():  # the caller that waited has gone
                continue
            if holds(fleet):
                watcher.set_result(fleet)
            else:
                waiting.append((holds, watcher))
        self._watchers = waiting


def _settle(answer: Answer | None, fleet: Fleet | None = None, error: Exception | None = None) -> None:
    if answer is None or answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    elif fleet is not None:
        answer.set_result(fleet)
