"""The workers' figures: sealed memory and a file for each that lives, and the base, the sum of those that have ended.

1. Each worker counts in memory of its own, which no other has. It is read when somebody asks, as ``series_keeper``
   does, while the worker tells of more, and when it has ended; what is understood of it (``figure_cells.understood``)
   is in the file from then on.
2. The file is the supervisor's alone. The next supervisor goes on from there; it gets the memory back from the worker,
   by /proc or when that comes back, and knows it by the inode in the file. What a worker counts without a supervisor,
   and dies before there is another, ends with it.
3. What a worker has left is added to the base, which names its file; then the file is removed. A supervisor that is
   killed between the two counts nothing twice and loses nothing: a file that is named is in the base already.
4. What the supervisor itself counts is in the base too, on the disk before anybody can have read it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from stillup.core.fleet_changes import FleetChanges
from stillup.errors import PeerError
from stillup.host import descriptors, shared_cells
from stillup.host.blocking_close import close_in_thread
from stillup.host.processes import boot_id
from stillup.host.runtime_directory import RuntimeDirectory
from stillup.wire import figure_cells
from stillup.wire.figure_cells import (
    CELLS,
    CUT_OFF,
    LAYOUT,
    OF_DEVICE,
    OF_INODE,
    OF_LAYOUT,
    OF_PID,
    SUPERVISOR_CELLS,
    Base,
)
from stillup.wire.runtime_paths import FIGURES

logger = logging.getLogger("stillup")


class WorkerFile(msgspec.Struct, eq=False):
    """A worker's file and its memory. The descriptors belong to who has this value."""

    name: str
    """Its path."""
    fd: int
    memory: int | None = None
    """What the worker counts in; None while we have not got it back."""
    seen: list[int] = []
    """What was understood when it was looked at last."""

    @property
    def identity(self) -> tuple[int, ...]:
        """Pid and start time of the worker; zeros while it has no process."""
        return tuple(shared_cells.read(self.fd)[OF_PID : OF_PID + 2])

    def look(self) -> list[int]:
        """What the worker has counted; the file has it from now on."""
        before = self.seen or figure_cells.understood(shared_cells.read(self.fd))
        if self.memory is None:
            self.seen = before
            return before
        self.seen = figure_cells.understood(shared_cells.read(self.memory), before)
        if self.seen != before:
            shared_cells.write(self.fd, CUT_OFF, *self.seen[CUT_OFF:])
            shared_cells.write(self.fd, OF_LAYOUT, LAYOUT)
        return self.seen

    def take(self, memory: int) -> bool:
        """Go on reading what it counts in, if this is that; whether it is. Then the descriptor is ours."""
        known = tuple(shared_cells.read(self.fd)[OF_DEVICE : OF_DEVICE + 2])
        if self.memory is not None or not shared_cells.is_sealed(memory) or shared_cells.identity(memory) != known:
            return False
        self.memory = memory
        return True

    def close(self) -> None:
        descriptors.close([self.fd] if self.memory is None else [self.fd, self.memory])


class Totals(msgspec.Struct, frozen=True):
    """What was counted, at one moment."""

    service: list[int]
    """Of all workers, living and dead: CELLS of them."""
    supervisor: list[int]
    """SUPERVISOR_CELLS of them."""
    lag: int
    """The worst of the living, in nanoseconds."""


class FigureFiles:
    """The files and the base. Every call blocks for the disk."""

    def __init__(self, runtime: RuntimeDirectory) -> None:
        """Begin with nothing; ``load`` goes on where another supervisor ended."""
        self._runtime = runtime
        self._base = Base(LAYOUT, boot_id(), [0] * CELLS, [0] * SUPERVISOR_CELLS, [])
        self._files: dict[int, WorkerFile] = {}
        """By the serials of the workers that live."""
        self._others: list[WorkerFile] = []
        """Of another supervisor's workers, until it is known who of them lives."""
        self._returned: dict[tuple[int, int], int] = {}
        """Until then: by pid and start time, the memory that workers have brought back."""
        self._settled = False
        self._place = shared_cells.place(runtime.path, FIGURES)
        """What the files' paths begin with; empty if there is no place for them."""
        self._changed = False
        """Whether the base on the disk is behind."""
        self._trouble = ""

    def load(self) -> None:
        """Take up what is in the directory."""
        names = shared_cells.found(self._place)
        try:
            text = self._runtime.read(f"{FIGURES}.json")
            base = figure_cells.decode(text) if text is not None else self._base
        except (OSError, PeerError) as error:
            logger.error("figures begin anew: those in %s are of no use: %s", self._runtime.path, error)  # noqa: TRY400
            base = self._base
        if base.boot != self._base.boot:
            for name in names:
                shared_cells.remove(name)
            return
        self._base = base
        for name in names:
            if name in base.holds:
                shared_cells.remove(name)
                continue
            try:
                self._others.append(WorkerFile(name, shared_cells.reopen(name)))
            except (OSError, PeerError) as error:
                logger.error("%s is not counted: %s", name, error)  # noqa: TRY400 - no bug

    def adopt(self, serial: int, pid: int, started: int) -> None:
        """One of another supervisor's workers lives on."""
        for file in self._others:
            if file.identity == (pid, started):
                self._others.remove(file)
                self._files[serial] = file
                if (memory := self._returned.pop((pid, started), None)) is None:
                    of_file = shared_cells.read(file.fd)
                    memory = shared_cells.memory_of(pid, (of_file[OF_DEVICE], of_file[OF_INODE]))
                if memory is not None and not file.take(memory):
                    close_in_thread([memory])
                return

    def came_back(self, pid: int, started: int, memory: int) -> None:
        """A worker says that it counts there; the descriptor is ours. It is kept if that is so, or may be so."""
        file = next((file for file in self._files.values() if file.identity == (pid, started)), None)
        if file is None and not self._settled:
            before, self._returned[pid, started] = self._returned.get((pid, started)), memory
            close_in_thread([before] if before is not None else [])
        elif file is None or not file.take(memory):
            close_in_thread([memory])

    def settle(self) -> None:
        """Nobody else of another supervisor's workers lives."""
        self._settled = True
        others, self._others = self._others, []
        self._bury(others)
        close_in_thread(self._returned.values())
        self._returned.clear()

    def create(self, serial: int) -> int:
        """Make memory and a file for a worker that is to be started; the memory, whose descriptor stays ours.

        Raises:
            OSError: it cannot be made.
        """
        if not self._place:
            message = "there is no file system in memory for them: neither the runtime directory's nor /dev/shm"
            raise OSError(message)
        name = f"{self._place}{secrets.token_hex(8)}"
        self._files[serial] = file = WorkerFile(name, shared_cells.create(name))
        file.memory = shared_cells.create_memory()
        shared_cells.write(file.fd, OF_DEVICE, *shared_cells.identity(file.memory))
        return file.memory

    def belongs(self, serial: int, pid: int, started: int) -> None:
        """Write into a worker's file whose it is, for a supervisor that may come after this one.

        Raises:
            OSError: it cannot be written.
        """
        if (file := self._files.get(serial)) is not None:
            shared_cells.write(file.fd, OF_PID, pid, started)

    def ended(self, serial: int) -> None:
        """A worker's process has ended: what it has left is kept."""
        if (file := self._files.pop(serial, None)) is not None:
            self._bury([file])

    def _bury(self, dead: Sequence[WorkerFile]) -> None:
        left = [figure_cells.left(file.look()) for file in dead]
        names = [file.name for file in dead]
        for file in dead:
            file.close()
        base = self._base
        self._base = msgspec.structs.replace(
            base, dead=figure_cells.added([base.dead, *left]), holds=[*base.holds, *names]
        )
        self._changed = True
        self.write()

    def count(self, changes: FleetChanges, more: Mapping[int, int]) -> None:
        """Add what the supervisor has seen, and what else it counts, by cell."""
        cells = figure_cells.counted(self._base.supervisor, changes)
        for cell, count in more.items():
            cells[cell] += count
        self._base = msgspec.structs.replace(self._base, supervisor=cells)
        self._changed = True
        self.write()

    def write(self) -> None:
        """Bring the base on the disk up to date, if that can be; else it is tried again with the next change."""
        if not self._changed:
            return
        try:
            # Not synced: after the host's end nobody reads it.
            self._runtime.replace(f"{FIGURES}.json", figure_cells.encode(self._base))
        except OSError as error:
            if str(error) != self._trouble:
                logger.error("figures cannot be written down: %s", error)  # noqa: TRY400 - no bug
            self._trouble = str(error)
            return
        self._changed, self._trouble = False, ""
        # What stays in spite of that is named on the disk until the next supervisor has removed it.
        for name in self._base.holds:
            shared_cells.remove(name)
        self._base = msgspec.structs.replace(self._base, holds=[])

    def look(self) -> list[list[int]]:
        """What each of the living has counted, which is in its file from now on."""
        return [file.look() for file in self._files.values()]

    def totals(self) -> Totals:
        """Everything that was counted until now."""
        self.write()
        living = self.look()
        return Totals(
            service=figure_cells.added([self._base.dead, *living]),
            supervisor=self._base.supervisor,
            lag=max((cells[figure_cells.LAG] for cells in living), default=0),
        )

    def remove(self) -> None:
        """Leave nothing in the directory."""
        self.close()
        for name in shared_cells.found(self._place):
            shared_cells.remove(name)
        self._runtime.remove(f"{FIGURES}.json")

    def close(self) -> None:
        """Close the descriptors; the files stay."""
        for file in (*self._files.values(), *self._others):
            file.close()
        close_in_thread(self._returned.values())
        self._files, self._others, self._returned = {}, [], {}
