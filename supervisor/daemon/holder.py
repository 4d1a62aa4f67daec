"""Custody: the supervisor's copy of every listener and of the adoption queue. It never takes from one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from supervisor.core.crossing import PACKET_AMONG_SEVERAL
from supervisor.errors import Unavailable
from supervisor.host import descriptors
from supervisor.host.adoption import AdoptionQueue, capacity, cookie
from supervisor.host.sockets import Listener, UnixFile, cookie_of_listener, open_listener
from supervisor.wire.address import Bind, InheritedAddress, UnixAddress, resembles
from supervisor.wire.adoption import ConnectionInfo, encode
from supervisor.wire.handoff import BATCH_LIMIT, ListenerInfo
from supervisor.wire.record import ListenerRecord, Record

logger = logging.getLogger("stillup")


class Holder:
    """The listeners and the adoption queue of the service; owns them until ``close``."""

    def __init__(self, binds: Sequence[Bind] = ()) -> None:
        """Hold nothing yet; note what was inherited for these binds, while no number can be that of our own sockets."""
        self._inherited: dict[int, int] = {}
        """By descriptor, the cookie of what listens there."""
        for bind in binds:
            if isinstance(bind.address, InheritedAddress) and (number := cookie_of_listener(bind.address.fd)):
                self._inherited[bind.address.fd] = number
        self.infos: tuple[ListenerInfo, ...] = ()
        """What is, or was, held: in the order of the binds."""
        self.cookies = (0, 0)
        """Of the adoption queue's reading and writing end."""
        self.capacity = 0
        """About how many connections the adoption queue holds."""
        self._binds: tuple[Bind, ...] = ()
        self._listeners: list[Listener] = []
        self._queue: AdoptionQueue | None = None
        self._returned: dict[int, Listener] = {}
        """By cookie, what workers gave back and no bind has claimed yet."""
        self._open = False

    def take_back(self, listeners: Sequence[Listener], queue: AdoptionQueue | None) -> None:
        """Take copies of what a worker holds into custody; what is here already, or not wanted any more, is closed."""
        held = {cookie(listener.socket) for listener in self._listeners}
        for listener in listeners:
            number = cookie(listener.socket)
            if self._open or number in held or number in self._returned:
                listener.socket.close()
            else:
                self._returned[number] = listener
        if queue is None:
            return
        if self._open or self._queue is not None:
            if self._queue is not None and queue.cookies != self._queue.cookies:
                logger.warning("a worker has an adoption queue of its own; what is in it waits for its own fellows")
            queue.close()
        else:
            self._queue = queue

    def has_all_of(self, record: Record) -> bool:
        """Whether everything that was on record is here again."""
        wanted = {listener.cookie for listener in record.listeners}
        return wanted <= self._returned.keys() and self._queue is not None and self._queue.cookies == record.queue

    def open(self, binds: Sequence[Bind], backlog: int, record: Record | None = None) -> bool:
        """Have a listener for every bind, or none: what was given back, else a new one. Whether all were given back.

        Raises:
            Refused: one cannot be had; those that could are closed again. The files of those that were given back stay:
                workers go on without us.
        """
        known = {entry.cookie: entry for entry in record.listeners} if record is not None else {}
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            claimed = self._claim(binds, known)
            whole = not self._returned and all(
                bind.name in claimed and claimed[bind.name].name == bind.name for bind in binds
            )
            for bind in binds:
                found = claimed.get(bind.name)
                self._listeners.append(replace(found, name=bind.name) if found else self._make(bind, backlog))
            if self._queue is None:
                self._queue = AdoptionQueue.make()
            self.infos = tuple(listener.info for listener in self._listeners)
            self.cookies = self._queue.cookies
            self.capacity = capacity(_typical(self.infos), PACKET_AMONG_SEVERAL)
            undo.pop_all()
        for place, bind in enumerate(binds):
            if bind.name in claimed:
                self._listeners[place] = self._with_file(self._listeners[place], bind, known)
        self._drop_returned(known)
        self._binds = tuple(binds)
        self._open = True
        return whole

    def _claim(self, binds: Sequence[Bind], known: Mapping[int, ListenerRecord]) -> dict[str, Listener]:
        """What workers gave back, by the name of the bind that it is for: of its own name first, then of any."""
        claimed: dict[str, Listener] = {}
        for by_name in (True, False):
            for bind in binds:
                if bind.name in claimed:
                    continue
                for number, listener in self._returned.items():
                    if (listener.name == bind.name or not by_name) and self._was_for(bind, number, known.get(number)):
                        claimed[bind.name] = self._returned.pop(number)
                        break
        return claimed

    def _make(self, bind: Bind, backlog: int) -> Listener:
        # Another number may be that of a socket of our own by now.
        if isinstance(bind.address, InheritedAddress) and bind.address.fd not in self._inherited:
            raise Unavailable(f"cannot use {bind.address}: start stillup with a listening socket there")
        return open_listener(bind, backlog)

    def _with_file(self, listener: Listener, bind: Bind, known: Mapping[int, ListenerRecord]) -> Listener:
        """One that was given back, with the file that is ours; a second copy of it would outlive the custody."""
        if isinstance(bind.address, InheritedAddress) and bind.address.fd in self._inherited:
            os.close(bind.address.fd)
        return replace(listener, file=_file_of(bind, known.get(cookie(listener.socket))))

    def _was_for(self, bind: Bind, number: int, entry: ListenerRecord | None) -> bool:
        """Whether a bind asked for this: the record knows what it was asked for as, else it is known by its looks."""
        if isinstance(bind.address, InheritedAddress) and bind.address.fd in self._inherited:
            return self._inherited[bind.address.fd] == number
        if entry is not None:
            return entry.bind == str(bind.address)
        return resembles(bind.address, self._returned[number].info.address)

    def records(self) -> list[ListenerRecord]:
        """What the record says of the listeners."""
        return [
            ListenerRecord(
                listener.name,
                str(bind.address),
                cookie(listener.socket),
                (listener.file.device, listener.file.inode) if listener.file is not None else None,
            )
            for bind, listener in zip(self._binds, self._listeners, strict=True)
        ]

    @property
    def waiting(self) -> int:
        """Connections in the adoption queue now."""
        return self._queue.waiting() if self._queue is not None else 0

    def batches(self) -> Iterator[list[int]]:
        """Copies of the descriptors, a batch at a time: in the order of ``infos``, then the queue's two ends.

        Copies, since a close of the originals must not let their numbers come to mean something else on the way; each
        batch is closed before the next. Nothing comes once the custody has ended.
        """
        held = [listener.socket for listener in self._listeners]
        if self._queue is not None:
            held += [self._queue.reader, self._queue.writer]
        for start in range(0, len(held), BATCH_LIMIT):
            batch = [descriptors.duplicate(sock.fileno()) for sock in held[start : start + BATCH_LIMIT]]
            try:
                yield batch
            finally:
                descriptors.close(batch)

    def close(self) -> None:
        """End the custody: close every copy and remove the socket files that are ours.

        With the workers' copies closed too, whoever reads the queue to its end has all that was in it.
        """
        self._drop_returned({})
        while self._listeners:
            listener = self._listeners.pop()
            try:
                listener.close()
            except OSError as error:  # its file cannot be removed; the rest can still be closed
                logger.warning("listener %s: %s", listener.name, error)
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def abandon(self) -> None:
        """Close every copy and leave the rest as it is: workers go on, and another supervisor comes."""
        self._listeners = [replace(listener, file=None) for listener in self._listeners]
        self.close()

    def _drop_returned(self, known: Mapping[int, ListenerRecord]) -> None:
        """Close what is not wanted any more, and remove the files that were ours."""
        for number, listener in self._returned.items():
            entry = known.get(number)
            listener.socket.close()
            if entry is not None and entry.file is not None:
                UnixFile(entry.bind.removeprefix("unix:"), *entry.file).remove()
        self._returned.clear()


def _file_of(bind: Bind, entry: ListenerRecord | None) -> UnixFile | None:
    """The socket file of a listener that was given back, if that is ours."""
    if not isinstance(bind.address, UnixAddress):
        return None
    if entry is not None and entry.file is not None:
        return UnixFile(bind.address.path, *entry.file)
    with contextlib.suppress(OSError):  # somebody has taken it away
        return UnixFile.of(bind.address.path)
    return None


def _typical(infos: Sequence[ListenerInfo]) -> bytes:
    """A packet such as most are: idle connections that have had some requests."""
    return encode([ConnectionInfo(infos[0].name, 1e6 / 7, 100, 1e6 / 7)] * PACKET_AMONG_SEVERAL)
