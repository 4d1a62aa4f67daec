"""The workers' figures (``figure_files``), for callers that may not wait for a disk.

All that is done to the files is the work of one thread, in the order of the requests: a disk that hangs stops nothing
but the figures.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from stillup.core.fleet_changes import NO_CHANGES, FleetChanges
from stillup.core.fleet_comparison import changes_between, have_counted
from stillup.core.model import Fleet
from stillup.daemon.state.figure_files import FigureFiles, Totals
from stillup.daemon.state.thread_wait import are_done
from stillup.errors import Refused
from stillup.host.blocking_close import close_in_thread
from stillup.host.processes import Process, block_handled

logger = logging.getLogger("stillup")

T = TypeVar("T")

PATIENCE: Final = 1.0
"""Seconds that a worker's start waits for its file; one whose disk hangs has no figures."""
PERIOD: Final = 1.0
"""Seconds, at least, between two looks at what workers count that nobody has asked for."""
ANSWER_PATIENCE: Final = 5.0
"""Seconds within which who asks for figures has them, or is refused."""


class Figures:
    """The files and their thread."""

    def __init__(self, files: FigureFiles) -> None:
        """Own the files."""
        self._disk = files
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="figures", initializer=block_handled)
        self._descriptors: dict[int, int] = {}
        self._more: Counter[int] = Counter()
        self._counted = asyncio.Event()
        """Whether a worker has told of more than was copied."""

    async def load(self, living: dict[int, Process]) -> None:
        """Go on where another supervisor ended whose workers live, by their serials."""
        identities = [(serial, process.pid, process.started) for serial, process in living.items()]

        def take_up() -> None:
            self._disk.load()
            for identity in identities:
                self._disk.adopt(*identity)
            self._disk.settle()

        await self._within(PATIENCE, take_up)

    async def begin(self, serial: int) -> None:
        """Have a file made for a worker that is to be started, if that can be in time."""
        fd = await self._within(PATIENCE, lambda: self._disk.create(serial))
        if fd is not None:
            self._descriptors[serial] = fd

    def belongs(self, serial: int, process: Process) -> None:
        """A worker's process exists."""
        if serial in self._descriptors:
            self._later(lambda: self._disk.belongs(serial, process.pid, process.started))

    def came_back(self, process: Process, memory: int) -> None:
        """A worker has come back, and says that it counts there; the descriptor is ours."""
        pid, started = process.pid, process.started
        if self._later(lambda: self._disk.came_back(pid, started, memory)) is None:
            close_in_thread([memory])

    async def keep(self) -> None:
        """Have what the workers count copied, once a second while they tell of more. Runs until it is cancelled."""
        while True:
            await self._counted.wait()
            self._counted.clear()
            if (done := self._later(self._disk.look)) is not None:
                await asyncio.wait({done})
            if done is None or done.exception() is not None:
                self._counted.set()  # it is tried again
            await asyncio.sleep(PERIOD)

    def descriptors(self, serial: int) -> list[int]:
        """The descriptor of a worker's memory, which stays ours; none if it has none."""
        return [self._descriptors[serial]] if serial in self._descriptors else []

    def ended(self, serial: int) -> None:
        """A worker's process has ended, or could not be started."""
        self._descriptors.pop(serial, None)
        self._later(lambda: self._disk.ended(serial))

    def changed(self, before: Fleet, after: Fleet) -> None:
        """Count what has happened between two fleets, and see whether workers may have counted."""
        if (changes := changes_between(before, after)) != NO_CHANGES:
            self._count(changes)
        if have_counted(before, after):
            self._counted.set()

    def more(self, cell: int) -> None:
        """Count one more in a cell of the supervisor's; on the disk when it is asked for, or told to be."""
        self._more[cell] += 1

    def _count(self, changes: FleetChanges = NO_CHANGES) -> None:
        more, self._more = self._more, Counter()
        if more or changes != NO_CHANGES:
            self._later(lambda: self._disk.count(changes, more))

    async def totals(self) -> Totals:
        """Everything that was counted until now.

        Raises:
            Refused: it cannot be read.
        """
        self._count()
        found = await self._within(ANSWER_PATIENCE, self._disk.totals)
        if found is None:
            raise Refused("the figures cannot be read now; the log says why", code="unavailable")
        return found

    async def written(self) -> None:
        """Wait until all that was counted, or asked for, is on the disk, but not for ever."""
        self._count()
        await self._within(PATIENCE, self._disk.totals)

    async def remove(self) -> None:
        """The service has ended: leave nothing in the directory."""
        await self._within(PATIENCE, self._disk.remove)

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    async def _within(self, seconds: float, work: Callable[[], T]) -> T | None:
        """What comes of it, or None if nothing does in time."""
        if (done := self._later(work)) is None:
            return None
        finished = await are_done({done}, seconds)
        if not finished:
            logger.warning("figures: the disk under the runtime directory takes long")
        return done.result() if finished and done.exception() is None else None

    def _later(self, work: Callable[[], T]) -> asyncio.Future[T] | None:
        try:
            done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # no thread can be started
            logger.error("figures are not kept: %s", error)  # noqa: TRY400 - no bug
            return None
        done.add_done_callback(_heard)
        return done


def _heard(done: asyncio.Future[T]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        known = isinstance(error, OSError)
        logger.error("figures: %s", error, exc_info=None if known else error)
