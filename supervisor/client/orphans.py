"""Workers whose supervisor has ended: who they are, and their end when nobody is to take them over.

The one place where a client deals with processes itself: there is no supervisor that could be asked.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.client.find import listens
from supervisor.errors import PeerError
from supervisor.host import processes, shared
from supervisor.host.processes import Process
from supervisor.host.runtime import claim
from supervisor.host.sockets import UnixFile
from supervisor.wire import record
from supervisor.wire.places import CONTROL, EVENTS, FIGURES, HANDOFF, OBSERVE, RECORD
from supervisor.wire.record import Record

MARGIN: Final = 15.0
"""Seconds past its drain's deadline in which a worker shuts its app down."""
TELL: Final = 1.0
"""Seconds between two words about whom we wait for."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A worker that lives without a supervisor. Owns its pidfd."""

    name: str
    """``3.1``: slot 1 of generation 3."""
    process: Process


@contextlib.contextmanager
def orphans(directory: str) -> Iterator[Sequence[Orphan]]:
    """Those that a supervisor has left behind, by its record; none while one is there."""
    with contextlib.ExitStack() as stack:
        found = []
        left = _record(directory) if not listens(directory) else None
        for worker in left.fleet.workers.values() if left is not None else ():
            process = processes.find(worker.pid, worker.started) if worker.pid is not None else None
            if process is not None:
                stack.callback(process.close)
                found.append(Orphan(worker.name, process))
        yield found


def end(directory: str, left: Sequence[Orphan], tell: Callable[[Sequence[Orphan]], None]) -> None:
    """Have them finish what they hold and leave; returns when the last has gone, and with it what they left.

    They keep their own deadlines; who has not left some time after that hangs, and is killed. No supervisor can start
    here meanwhile.

    Args:
        directory: the runtime directory.
        left: who is to leave.
        tell: is told now and then who is still there.

    Raises:
        Unavailable: a supervisor has just been started here.
    """
    runtime = claim(directory)
    try:
        for orphan in left:
            orphan.process.signal(signal.SIGTERM)
        waiting = list(left)
        told = time.monotonic()
        known = _record(directory)
        ends = told + MARGIN + (known.drain_timeout if known is not None else 0.0)
        while waiting:
            if time.monotonic() > ends:
                for orphan in waiting:
                    orphan.process.kill()
            poll = select.poll()
            for orphan in waiting:
                poll.register(orphan.process.pidfd, select.POLLIN)
            poll.poll(TELL * 1000)
            waiting = [orphan for orphan in waiting if not orphan.process.has_ended()]
            if waiting and time.monotonic() - told >= TELL:
                told = time.monotonic()
                tell(waiting)
        _tidy(directory)
        runtime.remove(RECORD, EVENTS)
    finally:
        runtime.close()


def _tidy(directory: str) -> None:
    """Remove the socket files that the supervisor could not."""
    left = _record(directory)
    for listener in left.listeners if left is not None else ():
        if listener.file is not None and listener.bind.startswith("unix:"):
            UnixFile(listener.bind.removeprefix("unix:"), *listener.file).remove()
    for path in shared.found(shared.place(directory, FIGURES)):
        shared.remove(path)
    for name in (CONTROL, OBSERVE, HANDOFF, f"{FIGURES}.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")


def _record(directory: str) -> Record | None:
    try:
        found = record.decode(Path(directory, RECORD).read_bytes())
    except (OSError, PeerError):  # none, or of no use: whoever it was of cannot be told
        return None
    return found if found.boot == processes.boot_id() else None
