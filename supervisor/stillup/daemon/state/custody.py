"""Custody: the supervisor's copy of every listener and of the adoption queue. It never takes from one."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from stillup.core.crossing import PACKET_AMONG_SEVERAL
from stillup.core.listener_key import ListenerKey
from stillup.core.values import replace
from stillup.daemon.settings.bind_changes import listener_key
from stillup.daemon.state.returned_listeners import ReturnedListeners
from stillup.errors import PeerError, Refused, Unavailable
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue, Gauge, capacity, cookie
from stillup.host.blocking_close import close_at_once, close_socket_in_thread
from stillup.host.socket_files import UnixFile
from stillup.host.sockets import Listener, open_listener
from stillup.wire.address import ActivatedAddress, Bind, InheritedAddress
from stillup.wire.adoption_packet import ConnectionInfo, encode
from stillup.wire.handoff_messages import BATCH_LIMIT, ListenerInfo
from stillup.wire.record_format import ListenerRecord, Record, ReexecState

logger = logging.getLogger("stillup")

MOST_OLDER: Final = 8
"""Queues of other supervisors that are read beside our own."""


class HeldListener(msgspec.Struct, frozen=True):
    """A listener in custody."""

    key: ListenerKey
    listener: Listener
    bind: Bind | None = None
    """What asked for it; None if it was another supervisor's, and is not asked for any more."""


class Custody:
    """The listeners and the adoption queue of the service; owns them until ``close``."""

    def __init__(
        self,
        binds: Sequence[Bind] = (),
        activated: Mapping[str, int] | None = None,
        *,
        outlived: bool = False,
        record: Record | None = None,
    ) -> None:
        """Hold nothing yet; note what was inherited for these binds, while no number can be that of our own sockets.

        Args:
            binds: what will be asked for.
            activated: by name, the descriptors that the service manager started us with.
            outlived: whether others hold what we hold, and its end is theirs.
            record: of the supervisor before this one, which says what may be taken from a worker.
        """
        self._record = record
        self.outlived = outlived
        """Whether our end is not that of what we hold."""
        self.infos: tuple[ListenerInfo, ...] = ()
        """What is, or was, held: in the order of the binds."""
        self.keys: tuple[ListenerKey, ...] = ()
        """Of these."""
        self.came_back: frozenset[ListenerKey] = frozenset()
        """Those of them that were not made anew when the custody was opened."""
        self.cookies = (0, 0)
        """Of the adoption queue's reading and writing end."""
        self.capacity = 0
        """About how many connections the adoption queue holds."""
        self._held: list[HeldListener] = []
        self._queue: AdoptionQueue | None = None
        self._gauge: Gauge | None = None
        self._older: dict[int, socket.socket] = {}
        """By cookie, the reading ends of queues that are not ours: what is in them is read by our workers, too."""
        self._returned = ReturnedListeners(binds, activated or {}, record)
        self._open = False
        self._shared = False
        """Whether workers have copies, so that an end of ours is not the end of what we hold."""

    def inherit(self, reexec_state: ReexecState) -> None:
        """Take over what a program before this one held in this process."""
        listeners = [
            Listener(known.name, socket.socket(fileno=fd))
            for known, fd in zip(reexec_state.record.listeners, reexec_state.listeners, strict=True)
        ]
        reader, writer = (socket.socket(fileno=fd) for fd in reexec_state.queue)
        self.take_back(listeners, AdoptionQueue(reader, writer))

    def descriptors(self) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The numbers of the listeners', in their order, and of the queue's ends; they stay ours."""
        assert self._queue is not None  # noqa: S101 - for the type checker: it is open while the service serves
        listeners = tuple(one.listener.socket.fileno() for one in self._held)
        return listeners, (self._queue.reader.fileno(), self._queue.writer.fileno())

    def take_back(self, listeners: Sequence[Listener], queue: AdoptionQueue | None) -> None:
        """Take copies of what a worker holds into custody; what is here already, or not wanted any more, is closed."""
        for listener in listeners:
            if self._open:
                close_at_once(listener.socket)
            else:
                self._returned.add(listener)
        if queue is None:
            return
        if self._queue is None and not self._open:
            self._queue = queue
        elif self._queue is not None:
            self._read_too(queue)
        else:
            queue.close_in_thread()

    def _read_too(self, queue: AdoptionQueue) -> None:
        """Have a queue read beside our own, if it is another one and there are not too many."""
        number = queue.cookies[0]
        known = self._queue is not None and number == self._queue.cookies[0]
        if known or number in self._older or len(self._older) >= MOST_OLDER:
            queue.close_in_thread()
        else:
            self._older[number] = queue.reader
            close_socket_in_thread(queue.writer)  # so that it ends when the last of those who write to it has left

    @property
    def most_returned(self) -> int:
        """So many listeners a worker may bring back; nobody holds more."""
        return self._returned.most

    def take_from_worker(self, listeners: Sequence[Listener], queue: AdoptionQueue | None) -> None:
        """As ``take_back``, of somebody who may bring anything (``ReturnedListeners.acceptable``).

        Raises:
            PeerError: a listener is of another network namespace. Everything is closed.
        """
        try:
            wanted = self._returned.acceptable(listeners, is_open=self._open)
        except PeerError:
            _close_all(listeners, queue)
            raise
        if self._record is None:
            self.take_back(wanted, queue)
            return
        if queue is not None and queue.cookies != self._record.queue:
            self._read_too(queue)
            queue = None
        self.take_back(wanted, queue)

    def has_all_of(self, record: Record) -> bool:
        """Whether everything that was on record is here again."""
        whole = self._queue is not None and self._queue.cookies == record.queue
        return whole and self._returned.has_all_of(record)

    def open(
        self,
        binds: Sequence[Bind],
        backlog: int,
        record: Record | None = None,
        wanted: AbstractSet[ListenerKey] = frozenset(),
    ) -> bool:
        """Have a listener for every bind, or none: what was given back, else a new one. Whether all were given back.

        Args:
            binds: what is asked for.
            backlog: of listen(2), for new ones.
            record: says what was whose.
            wanted: what the fleet on record wants of others that were given back; the rest is closed.

        Raises:
            Refused: one cannot be had.
            OSError: there are too few descriptors for the adoption queue. Each time what could be had is closed again;
                the files of what was given back stay, since workers go on without us.
        """
        known = {entry.cookie: entry for entry in record.listeners} if record is not None else {}
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            claimed = self._returned.claim(binds, known)
            others = self._returned.wanted_still(wanted, known)
            whole = not self._returned and all(
                listener_key(bind) in claimed and claimed[listener_key(bind)].name == bind.name for bind in binds
            )
            self._shared = self._shared or bool(claimed or others)
            self._held += [HeldListener(key, listener) for key, listener in others]
            for place, bind in enumerate(binds):
                key = listener_key(bind)
                found = claimed.get(key)
                if found is not None:
                    self._held.insert(place, HeldListener(key, replace(found, name=bind.name), bind))
                    continue
                try:
                    made = self._make(bind, backlog)
                except Refused as refusal:
                    if (kept := self._returned.without_file(bind, known)) is None:
                        raise
                    logger.warning("%s; workers keep the socket that they have, where nobody can connect", refusal)
                    self._shared = True
                    self._held.insert(place, HeldListener(key, kept, bind))
                    continue
                if made.file is not None:
                    undo.callback(made.file.remove)
                self._held.insert(place, HeldListener(key, made, bind))
            if self._queue is None:
                self._queue = AdoptionQueue.make()
            self._list()
            self.cookies = self._queue.cookies
            self._gauge = Gauge(self._queue)
            self.capacity = capacity(_typical(self.infos), PACKET_AMONG_SEVERAL)
            undo.pop_all()
        for place, bind in enumerate(binds):
            if listener_key(bind) in claimed:
                one = self._held[place]
                self._held[place] = replace(one, listener=self._returned.with_file(one.listener, bind, known))
        self._returned.drop(known, {key.bind for key in self.keys})
        self.came_back = frozenset({*claimed, *(key for key, _ in others)})
        self._open = True
        return whole

    def _make(self, bind: Bind, backlog: int) -> Listener:
        if isinstance(bind.address, InheritedAddress | ActivatedAddress):
            # Another number may be that of a socket of our own by now.
            if bind.address not in self._returned.inherited:
                raise Unavailable(f"cannot use {bind.address}: start stillup with a listening socket there")
            bind = replace(bind, address=InheritedAddress(self._returned.inherited[bind.address][0]))
        return open_listener(bind, backlog)

    def _list(self) -> None:
        self.infos = tuple(one.listener.info for one in self._held)
        self.keys = tuple(one.key for one in self._held)

    def add(self, bind: Bind, listener: Listener) -> None:
        """Hold another listener, which is ours from here on."""
        self._held.append(HeldListener(listener_key(bind), listener, bind))
        self._list()

    def remove(self, key: ListenerKey) -> Listener:
        """Hold a listener no more; it is the caller's from here on."""
        place = [one.key for one in self._held].index(key)
        removed = self._held.pop(place).listener
        self._list()
        return removed

    @property
    def binds(self) -> tuple[Bind, ...]:
        """What asked for the listeners, where that is known."""
        return tuple(one.bind for one in self._held if one.bind is not None)

    def numbers(self) -> list[int]:
        """The listeners' cookies."""
        return [cookie(one.listener.socket) for one in self._held]

    def records(self) -> list[ListenerRecord]:
        """What the record says of the listeners."""
        return [
            ListenerRecord(
                one.listener.name,
                one.key.bind,
                cookie(one.listener.socket),
                (one.listener.file.device, one.listener.file.inode) if one.listener.file is not None else None,
            )
            for one in self._held
        ]

    def files(self) -> dict[str, UnixFile]:
        """By the names of the listeners, the socket files that are ours."""
        return {one.listener.name: one.listener.file for one in self._held if one.listener.file is not None}

    def exchange(self, name: str, listener: Listener) -> Listener:
        """Put another of that name and path in the place of one with a file, which is the caller's from here on."""
        known = (
            place for place, one in enumerate(self._held) if one.key.name == name and one.listener.file is not None
        )
        place = next(known)
        before = self._held[place]
        self._held[place] = replace(before, listener=listener)
        return before.listener

    @property
    def waiting(self) -> int:
        """Connections in the adoption queue now."""
        return self._gauge.read() if self._gauge is not None else 0

    @property
    def older(self) -> list[int]:
        """The cookies of the reading ends that are handed out behind the queue's."""
        return list(self._older)

    def listed(self, keys: Sequence[ListenerKey] = ()) -> list[HeldListener]:
        """Those of the listeners that are held; all of them if none is named."""
        return [one for one in self._held if not keys or one.key in keys]

    def batches(self, listeners: Sequence[HeldListener] | None = None) -> Generator[list[int], None, None]:
        """Copies of the descriptors, a batch at a time: of the listeners, the queue's two ends, older ones.

        Copies, since a close of the originals must not let their numbers come to mean something else on the way; each
        batch is closed before the next. Nothing comes once the custody has ended.

        Args:
            listeners: in the order of ``listed``; None: all that are held, in that of ``infos``.

        Raises:
            Refused: there are no descriptors for the copies.
        """
        self._shared = True
        held = [one.listener.socket for one in (self._held if listeners is None or not self._held else listeners)]
        if self._queue is not None:
            held += [self._queue.reader, self._queue.writer]
            held += self._older.values()
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

        With the workers' copies closed too, a worker that reads the queue to its end gets all that was in it.
        """
        for one in self._held:
            try:
                if one.listener.file is not None and not self.outlived:
                    one.listener.file.remove()
            except OSError as error:  # the rest can still be removed
                logger.warning("listener %s: %s", one.key.name, error)
        self.close()

    def close(self) -> None:
        """Close every copy. The files stay while workers that have copies may serve on; else this is the end."""
        if not self._shared:
            self._shared = True
            self.end()
            return
        self._returned.drop({})
        while self._held:
            close_at_once(self._held.pop().listener.socket)
        if self._gauge is not None:
            self._gauge.close()
            self._gauge = None
        if self._queue is not None:
            self._queue.close_in_thread()
            self._queue = None
        while self._older:
            close_socket_in_thread(self._older.popitem()[1])


def _close_all(listeners: Sequence[Listener], queue: AdoptionQueue | None) -> None:
    for listener in listeners:
        close_at_once(listener.socket)
    if queue is not None:
        queue.close_in_thread()


def _copy(sock: socket.socket) -> int:
    """A copy for a worker, non-blocking: that is the socket's own setting, which any worker may have taken from it."""
    try:
        copy = descriptors.duplicate(sock.fileno())
    except OSError as error:
        raise Refused(f"its listeners cannot be copied for it: {error.strerror}", code="unavailable") from error
    os.set_blocking(copy, False)
    return copy


def _typical(infos: Sequence[ListenerInfo]) -> bytes:
    """A packet such as most are: idle connections that have had some requests."""
    return encode([ConnectionInfo(infos[0].name, 1e6 / 7, 100, 1e6 / 7)] * PACKET_AMONG_SEVERAL)
