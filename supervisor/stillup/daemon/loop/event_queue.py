"""Events on their way to the engine.

The queue is made before the engine: submitting needs no fleet, and start-up finds the first fleet while workers come
back.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from stillup.core.events import Event, StopAsked
from stillup.core.model import Fleet
from stillup.daemon.state.writer_thread import SLOW
from stillup.errors import Refused

PATIENCE: Final = 10.0
"""Seconds that a request waits for a disk that does not answer."""

HAS_STOPPED: Final = "the service has stopped"

Answer = asyncio.Future[Fleet]
"""The fleet right after an event, or why it was refused."""


class RecordDisk(Protocol):
    """Where the fleet is written down."""

    async def caught_up(self, patience: float) -> bool:
        """Whether a disk that did not answer in time has done so within so many seconds from now."""


class EventQueue:
    """Events in the order in which they were submitted, each with the future of the caller that waits, if one does."""

    def __init__(self, disk: RecordDisk) -> None:
        """Ask again once ``disk`` has caught up, for a request that could not be written down."""
        self._disk = disk
        self._queue: asyncio.Queue[tuple[Event | None, Answer | None]] = asyncio.Queue()
        self._ended = False
        self.asked_to_stop = False
        """Whether a stop was asked for, be it decided on or not yet."""

    def submit(self, event: Event) -> None:
        """Let an event happen; nobody waits for what comes of it."""
        self._put(event, None)

    async def ask(self, event: Event) -> Fleet:
        """Let an event happen; the fleet right after it.

        Raises:
            Refused: it has no place in the fleet as it is, or is a request that cannot be written down; or the service
                has stopped.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + PATIENCE
        while True:
            if self._ended:
                raise Refused(HAS_STOPPED, code="stopping")
            answer: Answer = loop.create_future()
            self._put(event, answer)
            try:
                return await answer
            except NotWritten as refusal:
                left = ends - loop.time()
                if refusal.trouble != SLOW or left <= 0 or not await self._disk.caught_up(left):
                    raise

    def end(self) -> None:
        """Refuse what waits, and all that comes: nobody will decide on it, since the service has stopped."""
        self._ended = True
        while not self._queue.empty():
            event, answer = self._queue.get_nowait()
            if answer is None or answer.done():
                continue
            if event is None:
                answer.cancel()
            else:
                answer.set_exception(Refused(HAS_STOPPED, code="stopping"))

    async def turn(self) -> None:
        """Return once everything that was submitted before has been dealt with: an engine that is stuck does not."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((None, answer))
        await answer

    async def next(self) -> tuple[Event | None, Answer | None]:
        """Wait for the next event, and the future of the caller that waits for it; None stands for a ``turn``."""
        return await self._queue.get()

    def _put(self, event: Event, answer: Answer | None) -> None:
        self.asked_to_stop |= isinstance(event, StopAsked)
        self._queue.put_nowait((event, answer))


class NotWritten(Refused):
    """A request that could not be written down."""

    def __init__(self, trouble: str) -> None:
        message = f"it cannot be written down, and so is not done: {trouble}; what serves goes on"
        super().__init__(message, code="unavailable")
        self.trouble = trouble
