"""Custody: the supervisor's copy of every listener. It never accepts on one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from supervisor.host import descriptors
from supervisor.host.sockets import Listener, open_listener
from supervisor.wire.address import Bind
from supervisor.wire.handoff import BATCH_LIMIT, ListenerInfo

logger = logging.getLogger("stillup")


class Holder:
    """The listeners of the service; owns them until ``close``."""

    def __init__(self, binds: Sequence[Bind], backlog: int) -> None:
        """Bind them all, or none.

        Raises:
            Refused: one cannot be had; those that could are closed again.
        """
        self._listeners: list[Listener] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for bind in binds:
                self._listeners.append(open_listener(bind, backlog))
            undo.pop_all()
        self.infos: tuple[ListenerInfo, ...] = tuple(listener.info for listener in self._listeners)
        """What is, or was, held: in the order of the binds."""

    def batches(self) -> Iterator[list[int]]:
        """Copies of the descriptors, in the order of ``infos``, a batch at a time; each is closed before the next.

        Copies, since a close of the originals must not let their numbers come to mean something else on the way.
        """
        for start in range(0, len(self._listeners), BATCH_LIMIT):
            some = self._listeners[start : start + BATCH_LIMIT]
            batch = [descriptors.duplicate(listener.socket.fileno()) for listener in some]
            try:
                yield batch
            finally:
                descriptors.close(batch)

    def close(self) -> None:
        """End the custody: close every copy and remove the socket files that are ours."""
        while self._listeners:
            listener = self._listeners.pop()
            try:
                listener.close()
            except OSError as error:  # its file cannot be removed; the rest can still be closed
                logger.warning("listener %s: %s", listener.name, error)
