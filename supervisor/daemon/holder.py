"""Custody: the supervisor's copy of every listener. It never accepts on one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from supervisor.host.sockets import Listener, open_listener
from supervisor.wire.address import Bind
from supervisor.wire.handoff import BATCH_LIMIT, ListenerInfo


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
            batch = [os.dup(listener.socket.fileno()) for listener in self._listeners[start : start + BATCH_LIMIT]]
            try:
                yield batch
            finally:
                for fd in batch:
                    os.close(fd)

    def close(self) -> None:
        """End the custody: close every copy and remove the socket files that are ours."""
        while self._listeners:
            self._listeners.pop().close()
