"""Workers whose supervisor has ended: which there are, and how they are ended when no supervisor is to take them over.

The one place where a client signals processes itself: there is no supervisor that could be asked.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from stillup.client.client_errors import NotRunningError
from stillup.client.runtime_place import RuntimePlace, visit
from stillup.core.model import Fleet, Hook, Worker
from stillup.errors import PeerError, Unavailable
from stillup.host import processes, shared_cells
from stillup.host.process_groups import kill_left_behind, signal_group
from stillup.host.processes import Process
from stillup.host.runtime_directory import claim, read_file
from stillup.host.socket_files import UnixFile
from stillup.wire import record_format
from stillup.wire.record_format import Record
from stillup.wire.runtime_paths import CONTROL, EVENTS, FIGURES, HANDOFF, OBSERVE, RECORD

MARGIN: Final = 15.0
"""Seconds past its drain's deadline in which a worker shuts its app down."""
MOST_OF_OTHERS: Final = 4 << 20
"""Bytes of a record of another user's that is read: in memory it may come to 30 times as many."""
TELL: Final = 1.0
"""Seconds between two messages about the workers that are waited for."""


class Orphan(msgspec.Struct, frozen=True):
    """A worker, or a hook, that lives without a supervisor. Owns its pidfd."""

    name: str
    """``3.1``: slot 1 of generation 3; ``manage.py migrate`` of a hook."""
    process: Process


@contextlib.contextmanager
def orphans(directory: str) -> Iterator[Sequence[Orphan]]:
    """The workers that a supervisor has left behind, by its record; none while somebody listens there.

    Nor where somebody else could have put the directory, or the record, there; nor any process that its owner could
    not have started: what is in a record is whom to end.
    """
    with contextlib.ExitStack() as stack:
        found: list[Orphan] = []
        try:
            place = stack.enter_context(visit(directory))
            left = _record(place) if not place.is_heard else None
        except (OSError, NotRunningError):
            left = None
        for known in _known(left.fleet) if left is not None else ():
            try:
                process = processes.find(known.pid, known.started) if known.pid is not None else None
            except OSError:  # out of descriptors: a record can name any number of them
                break
            if process is None:
                continue
            if place.owner == 0 or processes.owner(process.pid) == place.owner:
                stack.callback(process.close)
                found.append(Orphan(known.name, process))
            else:
                process.close()
        yield found


def end(directory: str, left: Sequence[Orphan], tell: Callable[[Sequence[Orphan]], None], *, now: bool = False) -> None:
    """Have them finish what they hold and leave; returns when the last has gone and the files are removed.

    They keep their own deadlines; one that has not left MARGIN seconds after that is killed. No supervisor can start
    here meanwhile.

    Args:
        directory: the runtime directory.
        left: the workers that are to leave.
        tell: is called about once a second with those that are still there.
        now: whether they are to end what they hold, and not to finish it; that is their second SIGTERM's word.

    Raises:
        Unavailable: a supervisor has just been started here, or they are another user's.
    """
    with visit(directory) as place:
        if place.owner not in (0, os.geteuid()):
            raise Unavailable(f"they are of uid {place.owner}: 'stillup stop' as that user ends them")
        known = _record(place)
    runtime = claim(directory)
    try:
        for orphan in left:
            orphan.process.signal(signal.SIGTERM)
        waiting = list(left)
        told = time.monotonic()
        ends = told + MARGIN + (known.drain_timeout if known is not None else 0.0)
        while waiting:
            if time.monotonic() > ends:
                for orphan in waiting:
                    signal_group(orphan.process, signal.SIGKILL)
                    orphan.process.kill()
            poll = select.poll()
            for orphan in waiting:
                poll.register(orphan.process.pidfd, select.POLLIN)
            poll.poll(TELL * 1000)
            for orphan in waiting:
                if orphan.process.has_ended() and not signal_group(orphan.process, signal.SIGKILL):
                    kill_left_behind(orphan.process.pid, orphan.process.started)
            waiting = [orphan for orphan in waiting if not orphan.process.has_ended()]
            if waiting and time.monotonic() - told >= TELL:
                told = time.monotonic()
                tell(waiting)
                for orphan in waiting if now else ():
                    orphan.process.signal(signal.SIGTERM)
        _tidy(directory, known)
        runtime.remove(RECORD, EVENTS)
    finally:
        runtime.close()


def _known(fleet: Fleet) -> Iterator[Worker | Hook]:
    """Whose processes may live: the workers, and the program that was run around a rollout."""
    yield from fleet.workers.values()
    if fleet.hook_under_way is not None:
        yield fleet.hook_under_way


def _tidy(directory: str, known: Record | None) -> None:
    """Remove the socket files that the supervisor could not."""
    for listener in known.listeners if known is not None else ():
        if listener.file is not None and listener.bind.startswith("unix:"):
            UnixFile(listener.bind.removeprefix("unix:"), *listener.file).remove()
    for path in shared_cells.found(shared_cells.place(directory, FIGURES)):
        shared_cells.remove(path)
    for name in (CONTROL, OBSERVE, HANDOFF, f"{FIGURES}.json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")


def _record(place: RuntimePlace) -> Record | None:
    try:
        most = None if place.owner in (0, os.geteuid()) else MOST_OF_OTHERS
        text = read_file(RECORD, (place.owner,), directory=place.fd, most=most)
        found = record_format.decode(text)
    except (OSError, PeerError):  # none, or it cannot be read: then its workers are not known
        return None
    return found if found.boot == processes.boot_id() else None
