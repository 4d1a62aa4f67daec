"""Custody: the supervisor's copy of every listener and of the adoption queue. It never takes from one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from supervisor.core.crossing import PACKET_AMONG_SEVERAL
from supervisor.host import descriptors
from supervisor.host.adoption import AdoptionQueue, capacity
from supervisor.host.sockets import Listener, open_listener
from supervisor.wire.address import Bind
from supervisor.wire.adoption import ConnectionInfo, encode
from supervisor.wire.handoff import BATCH_LIMIT, ListenerInfo

logger = logging.getLogger("stillup")


class Holder:
    """The listeners and the adoption queue of the service; owns them until ``close``."""

    def __init__(self, binds: Sequence[Bind], backlog: int) -> None:
        """Bind them all, or none.

        Raises:
            Refused: one cannot be had; those that could are closed again.
        """
        self._listeners: list[Listener] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_listeners)
            for bind in binds:
                self._listeners.append(open_listener(bind, backlog))
            self.infos: tuple[ListenerInfo, ...] = tuple(listener.info for listener in self._listeners)
            """What is, or was, held: in the order of the binds."""
            self._queue: AdoptionQueue | None = AdoptionQueue.make()
            undo.pop_all()
        self.cookies = self._queue.cookies
        """Of the adoption queue's reading and writing end."""
        self.capacity = capacity(_typical(self.infos), PACKET_AMONG_SEVERAL)
        """About how many connections the adoption queue holds."""

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
        self._close_listeners()
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _close_listeners(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            try:
                listener.close()
            except OSError as error:  # its file cannot be removed; the rest can still be closed
                logger.warning("listener %s: %s", listener.name, error)


def _typical(infos: Sequence[ListenerInfo]) -> bytes:
    """A packet such as most are: idle connections that have had some requests."""
    return encode([ConnectionInfo(infos[0].name, 1e6 / 7, 100, 1e6 / 7)] * PACKET_AMONG_SEVERAL)
