"""The workers' figures: the files of those who live, and the base, in which is what the dead have left.

1. Each worker counts in a file of its own, which is read when somebody asks, and once more when it has ended.
2. The files are in memory, of a tmpfs: who counts in one on a disk would stand still when that does.
3. What a worker has left is added to the base, which names its file; then the file goes. Whoever is killed between the
   two has neither counted twice nor lost anything: a file that is named is in the base already.
4. What the supervisor itself counts is in the base too, on the disk before anybody can have read it.
5. All this is the work of one thread, in the order of the requests: a disk that hangs stops nothing but the figures.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from supervisor.core.model import Fleet
from supervisor.core.tally import NOTHING, Tally, between
from supervisor.errors import PeerError, Refused
from supervisor.host import descriptors, shared
from supervisor.host.processes import Process, block_handled, boot_id
from supervisor.host.runtime import RuntimeDirectory
from supervisor.wire import figures
from supervisor.wire.figures import CELLS, LAYOUT, OF_PID, SUPERVISOR_CELLS, Base
from supervisor.wire.places import FIGURES

logger = logging.getLogger("stillup")

T = TypeVar("T")

PATIENCE: Final = 1.0
"""Seconds that a worker's start waits for its file; one whose disk hangs has no figures."""
ANSWER_PATIENCE: Final = 5.0
"""Seconds within which who asks for figures has them, or is refused."""


@dataclass(frozen=True, slots=True)
class File:
    """A worker's file. Whoever has it owns the descriptor."""

    name: str
    """Its path."""
    fd: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What was counted, at one moment."""

    service: list[int]
    """Of all workers, living and dead: CELLS of them."""
    supervisor: list[int]
    """SUPERVISOR_CELLS of them."""
    lag: int
    """The worst of the living, in nanoseconds."""


class Store:
    """The files and the base. Every call blocks for the disk."""

    def __init__(self, runtime: RuntimeDirectory) -> None:
        """Begin with nothing; ``load`` goes on where another supervisor ended."""
        self._runtime = runtime
        self._base = Base(LAYOUT, boot_id(), [0] * CELLS, [0] * SUPERVISOR_CELLS, [])
        self._files: dict[int, File] = {}
        """By the serials of the workers that live."""
        self._others: list[File] = []
        """Of another supervisor's workers, until it is known who of them lives."""
        self._place = shared.place(runtime.path, FIGURES)
        """What the files' paths begin with; empty if there is no place for them."""
        self._changed = False
        """Whether the base on the disk is behind."""
        self._trouble = ""

    def load(self) -> None:
        """Take up what is in the directory."""
        names = shared.found(self._place)
        try:
            text = self._runtime.read(f"{FIGURES}.json")
            base = figures.decode(text) if text is not None else self._base
        except (OSError, PeerError) as error:
            logger.error("figures begin anew: those in %s are of no use: %s", self._runtime.path, error)  # noqa: TRY400
            base = self._base
        if base.boot != self._base.boot:
            for name in names:
                shared.remove(name)
            return
        self._base = base
        for name in names:
            if name in base.holds:
                shared.remove(name)
                continue
            try:
                self._others.append(File(name, shared.reopen(name)))
            except (OSError, PeerError) as error:
                logger.error("%s is not counted: %s", name, error)  # noqa: TRY400 - no bug

    def adopt(self, serial: int, pid: int, started: int) -> None:
        """One of another supervisor's workers lives on."""
        for file in self._others:
            if tuple(shared.read(file.fd)[OF_PID : OF_PID + 2]) == (pid, started):
                self._others.remove(file)
                self._files[serial] = file
                return

    def settle(self) -> None:
        """Nobody else of another supervisor's workers lives."""
        others, self._others = self._others, []
        self._bury(others)

    def create(self, serial: int) -> int:
        """Make a file for a worker that is to be started; the descriptor stays ours.

        Raises:
            OSError: it cannot be made.
        """
        if not self._place:
            message = "there is no file system in memory for them: neither the runtime directory's nor /dev/shm"
            raise OSError(message)
        name = f"{self._place}{secrets.token_hex(8)}"
        fd = shared.create(name)
        self._files[serial] = File(name, fd)
        return fd

    def belongs(self, serial: int, pid: int, started: int) -> None:
        """Write into a worker's file whose it is, for a supervisor that may come after this one.

        Raises:
            OSError: it cannot be written.
        """
        if (file := self._files.get(serial)) is not None:
            shared.write(file.fd, OF_PID, pid, started)

    def ended(self, serial: int) -> None:
        """A worker's process has ended: what it has left is kept."""
        if (file := self._files.pop(serial, None)) is not None:
            self._bury([file])

    def _bury(self, dead: Sequence[File]) -> None:
        left = [figures.left(figures.understood(shared.read(file.fd))) for file in dead]
        names = [file.name for file in dead]
        descriptors.close(file.fd for file in dead)
        base = self._base
        self._base = msgspec.structs.replace(base, dead=figures.added([base.dead, *left]), holds=[*base.holds, *names])
        self._changed = True
        self.write()

    def count(self, tally: Tally) -> None:
        """Add what the supervisor has seen."""
        cells = figures.counted(self._base.supervisor, tally)
        self._base = msgspec.structs.replace(self._base, supervisor=cells)
        self._changed = True
        self.write()

    def write(self) -> None:
        """Bring the base on the disk up to date, if that can be; else it is tried again with the next change."""
        if not self._changed:
            return
        try:
            # Not synced: after the host's end nobody reads it.
            self._runtime.replace(f"{FIGURES}.json", figures.encode(self._base))
        except OSError as error:
            if str(error) != self._trouble:
                logger.error("figures cannot be written down: %s", error)  # noqa: TRY400 - no bug
            self._trouble = str(error)
            return
        self._changed, self._trouble = False, ""
        # What stays in spite of that is named on the disk until the next supervisor has removed it.
        for name in self._base.holds:
            shared.remove(name)
        self._base = msgspec.structs.replace(self._base, holds=[])

    def totals(self) -> Totals:
        """Everything that was counted until now."""
        self.write()
        living = [figures.understood(shared.read(file.fd)) for file in self._files.values()]
        return Totals(
            service=figures.added([self._base.dead, *living]),
            supervisor=self._base.supervisor,
            lag=max((cells[figures.LAG] for cells in living), default=0),
        )

    def remove(self) -> None:
        """Leave nothing in the directory."""
        self.close()
        for name in shared.found(self._place):
            shared.remove(name)
        self._runtime.remove(f"{FIGURES}.json")

    def close(self) -> None:
        """Close the descriptors; the files stay."""
        descriptors.close(file.fd for file in (*self._files.values(), *self._others))
        self._files, self._others = {}, []


class Figures:
    """The store and its thread, for those who may not wait for a disk."""

    def __init__(self, store: Store) -> None:
        """Own the store."""
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="figures", initializer=block_handled)
        self._descriptors: dict[int, int] = {}

    async def load(self, living: dict[int, Process]) -> None:
        """Go on where another supervisor ended whose workers live, by their serials."""
        identities = [(serial, process.pid, process.started) for serial, process in living.items()]

        def take_up() -> None:
            self._store.load()
            for identity in identities:
                self._store.adopt(*identity)
            self._store.settle()

        await self._within(PATIENCE, take_up)

    async def begin(self, serial: int) -> None:
        """Have a file made for a worker that is to be started, if that can be in time."""
        fd = await self._within(PATIENCE, lambda: self._store.create(serial))
        if fd is not None:
            self._descriptors[serial] = fd

    def belongs(self, serial: int, process: Process) -> None:
        """A worker's process exists."""
        if serial in self._descriptors:
            self._later(lambda: self._store.belongs(serial, process.pid, process.started))

    def descriptors(self, serial: int) -> list[int]:
        """The descriptor of a worker's file, which stays ours; none if it has no file."""
        return [self._descriptors[serial]] if serial in self._descriptors else []

    def ended(self, serial: int) -> None:
        """A worker's process has ended, or could not be started."""
        self._descriptors.pop(serial, None)
        self._later(lambda: self._store.ended(serial))

    def changed(self, before: Fleet, after: Fleet) -> None:
        """Count what has happened between two fleets."""
        tally = between(before, after)
        if tally != NOTHING:
            self._later(lambda: self._store.count(tally))

    async def totals(self) -> Totals:
        """Everything that was counted until now.

        Raises:
            Refused: it cannot be read.
        """
        found = await self._within(ANSWER_PATIENCE, self._store.totals)
        if found is None:
            raise Refused("the figures cannot be read now; the log says why", code="unavailable")
        return found

    async def written(self) -> None:
        """Wait until all that was asked for is on the disk, but not for ever."""
        await self._within(PATIENCE, self._store.write)

    async def remove(self) -> None:
        """The service has ended: leave nothing in the directory."""
        await self._within(PATIENCE, self._store.remove)

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    async def _within(self, seconds: float, work: Callable[[], T]) -> T | None:
        """What comes of it, or None if nothing does in time."""
        if (done := self._later(work)) is None:
            return None
        finished, _ = await asyncio.wait({done}, timeout=seconds)
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
