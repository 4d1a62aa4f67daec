"""Custody: the supervisor's copy of every listener and of the adoption queue. It never takes from one."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from supervisor.core.crossing import PACKET_AMONG_SEVERAL
from supervisor.errors import Refused, Unavailable
from supervisor.host import descriptors
from supervisor.host.adoption import AdoptionQueue, Gauge, capacity, cookie
from supervisor.host.sockets import Listener, UnixFile, cookie_of_listener, open_listener
from supervisor.wire.address import ActivatedAddress, Address, Bind, InheritedAddress, UnixAddress, resembles
from supervisor.wire.adoption import ConnectionInfo, encode
from supervisor.wire.handoff import BATCH_LIMIT, ListenerInfo
from supervisor.wire.record import Bequest, ListenerRecord, Record

logger = logging.getLogger("stillup")


class Holder:
    """The listeners and the adoption queue of the service; owns them until ``close``."""

    def __init__(
        self, binds: Sequence[Bind] = (), activated: Mapping[str, int] | None = None, *, outlived: bool = False
    ) -> None:
        """Hold nothing yet; note what was inherited for these binds, while no number can be that of our own sockets.

        Args:
            binds: what will be asked for.
            activated: by name, the descriptors that the service manager started us with.
            outlived: whether others hold what we hold, and its end is theirs.
        """
        self.outlived = outlived
        """Whether our end is not that of what we hold."""
        self._inherited: dict[Address, tuple[int, int]] = {}
        """The descriptor, and the cookie of what listens there."""
        for bind in binds:
            fd = None
            match bind.address:
                case InheritedAddress(number):
                    fd = number
                case ActivatedAddress(name):
                    fd = (activated or {}).get(name)
            if fd is not None and (seen := cookie_of_listener(fd)):
                self._inherited[bind.address] = fd, seen
        self.infos: tuple[ListenerInfo, ...] = ()
        """What is, or was, held: in the order of the binds."""
        self.cookies = (0, 0)
        """Of the adoption queue's reading and writing end."""
        self.capacity = 0
        """About how many connections the adoption queue holds."""
        self._binds: tuple[Bind, ...] = ()
        self._listeners: list[Listener] = []
        self._queue: AdoptionQueue | None = None
        self._gauge: Gauge | None = None
        self._older: dict[int, socket.socket] = {}
        """By cookie, the reading ends of queues that are not ours: what is in them is read by our workers, too."""
        self._returned: dict[int, Listener] = {}
        """By cookie, what workers gave back and no bind has claimed yet."""
        self._open = False
        self._shared = False
        """Whether workers have copies, so that an end of ours is not the end of what we hold."""

    def inherit(self, bequest: Bequest) -> None:
        """Take over what a program before this one held in this process."""
        listeners = [
            Listener(known.name, socket.socket(fileno=fd))
            for known, fd in zip(bequest.record.listeners, bequest.listeners, strict=True)
        ]
        reader, writer = (socket.socket(fileno=fd) for fd in bequest.queue)
        self.take_back(listeners, AdoptionQueue(reader, writer))

    def descriptors(self) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The numbers of the listeners', in their order, and of the queue's ends; they stay ours."""
        assert self._queue is not None  # noqa: S101 - for the type checker: it is open while the service serves
        listeners = tuple(listener.socket.fileno() for listener in self._listeners)
        return listeners, (self._queue.reader.fileno(), self._queue.writer.fileno())

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
        if self._queue is None and not self._open:
            self._queue = queue
            return
        number = queue.cookies[0]
        if self._queue is not None and number != self._queue.cookies[0] and number not in self._older:
            self._older[number] = queue.reader
            queue.writer.close()  # so that it ends when the last of those who write to it has left
        else:
            queue.close()

    def has_all_of(self, record: Record) -> bool:
        """Whether everything that was on record is here again."""
        wanted = {listener.cookie for listener in record.listeners}
        return wanted <= self._returned.keys() and self._queue is not None and self._queue.cookies == record.queue

    def open(self, binds: Sequence[Bind], backlog: int, record: Record | None = None) -> bool:
        """Have a listener for every bind, or none: what was given back, else a new one. Whether all were given back.

        Raises:
            Refused: one cannot be had.
            OSError: there are too few descriptors for the adoption queue. Each time what could be had is closed again;
                the files of what was given back stay, since workers go on without us.
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
                if found is not None:
                    self._shared = True
                    self._listeners.append(replace(found, name=bind.name))
                    continue
                made = self._make(bind, backlog)
                if made.file is not None:
                    undo.callback(made.file.remove)
                self._listeners.append(made)
            if self._queue is None:
                self._queue = AdoptionQueue.make()
            self.infos = tuple(listener.info for listener in self._listeners)
            self.cookies = self._queue.cookies
            self._gauge = Gauge(self._queue)
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
        if isinstance(bind.address, InheritedAddress | ActivatedAddress):
            # Another number may be that of a socket of our own by now.
            if bind.address not in self._inherited:
                raise Unavailable(f"cannot use {bind.address}: start stillup with a listening socket there")
            bind = replace(bind, address=InheritedAddress(self._inherited[bind.address][0]))
        return open_listener(bind, backlog)

    def _with_file(self, listener: Listener, bind: Bind, known: Mapping[int, ListenerRecord]) -> Listener:
        """One that was given back, with the file that is ours; a second copy of it would outlive the custody."""
        fd, _ = self._inherited.get(bind.address, (None, None))
        if fd is not None and fd != listener.socket.fileno():
            os.close(fd)
        return replace(listener, file=_file_of(bind, known.get(cookie(listener.socket))))

    def _was_for(self, bind: Bind, number: int, entry: ListenerRecord | None) -> bool:
        """Whether a bind asked for this: the record knows what it was asked for as, else it is known by its looks."""
        if bind.address in self._inherited:
            return self._inherited[bind.address][1] == number
        if entry is not None:
            fits = entry.bind == str(bind.address)
        else:
            fits = resembles(bind.address, self._returned[number].info.address)
        try:
            return fits and (_file_of(bind, entry) is not None or not isinstance(bind.address, UnixAddress))
        except FileNotFoundError:
            return False  # nobody can connect to it any more

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
        return self._gauge.read() if self._gauge is not None else 0

    @property
    def older(self) -> list[int]:
        """The cookies of the reading ends that are handed out behind the queue's."""
        return list(self._older)

    def batches(self, *, older: bool = True) -> Iterator[list[int]]:
        """Copies of the descriptors, a batch at a time: in the order of ``infos``, the queue's two ends, older ones.

        Copies, since a close of the originals must not let their numbers come to mean something else on the way; each
        batch is closed before the next. Nothing comes once the custody has ended.

        Raises:
            Refused: there are no descriptors for the copies.
        """
        self._shared = True
        held = [listener.socket for listener in self._listeners]
        if self._queue is not None:
            held += [self._queue.reader, self._queue.writer]
            held += self._older.values() if older else []
        for start in range(0, len(held), BATCH_LIMIT):
            batch: list[int] = []
            try:
                for sock in held[start : start + BATCH_LIMIT]:
                    batch.append(_copy(sock))  # noqa: PERF401 - what could be had is in it when one cannot
                yield batch
            finally:
                descriptors.close(batch)

    def end(self) -> None:
        """End the custody: remove the socket files that are ours, and close every copy.

        With the workers' copies closed too, whoever reads the queue to its end has all that was in it.
        """
        for listener in self._listeners:
            try:
                if listener.file is not None and not self.outlived:
                    listener.file.remove()
            except OSError as error:  # the rest can still be removed
                logger.warning("listener %s: %s", listener.name, error)
        self.close()

    def close(self) -> None:
        """Close every copy. The files stay while workers that have copies may serve on; else this is the end."""
        if not self._shared:
            self._shared = True
            self.end()
            return
        self._drop_returned({})
        while self._listeners:
            self._listeners.pop().socket.close()
        if self._gauge is not None:
            self._gauge.close()
            self._gauge = None
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        while self._older:
            self._older.popitem()[1].close()

    def _drop_returned(self, known: Mapping[int, ListenerRecord]) -> None:
        """Close what is not wanted any more, and remove the files that were ours."""
        for number, listener in self._returned.items():
            entry = known.get(number)
            listener.socket.close()
            if entry is not None and entry.file is not None:
                UnixFile(entry.bind.removeprefix("unix:"), *entry.file).remove()
        self._returned.clear()


def _file_of(bind: Bind, entry: ListenerRecord | None) -> UnixFile | None:
    """The socket file of a listener that was given back.

    Raises:
        FileNotFoundError: it is gone, or somebody else's is in its place.
    """
    if not isinstance(bind.address, UnixAddress):
        return None
    found = UnixFile.of(bind.address.path)
    if entry is not None and entry.file is not None and entry.file != (found.device, found.inode):
        raise FileNotFoundError(bind.address.path)
    return found


def _copy(sock: socket.socket) -> int:
    try:
        return descriptors.duplicate(sock.fileno())
    except OSError as error:
        raise Refused(f"its listeners cannot be copied for it: {error.strerror}", code="descriptors") from error


def _typical(infos: Sequence[ListenerInfo]) -> bytes:
    """A packet such as most are: idle connections that have had some requests."""
    return encode([ConnectionInfo(infos[0].name, 1e6 / 7, 100, 1e6 / 7)] * PACKET_AMONG_SEVERAL)
