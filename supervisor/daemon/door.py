"""The door for operators: ``control.sock``, and who stands there.

Whoever stands there costs little and keeps nobody out, whatever he sends or does not send:

1. There are places, in all and for each user. ``core.door`` says who has to go for a newcomer.
2. A request has a deadline and a size; an answer has a deadline from when its client stops reading.
3. What is read at a time is little, since a parser goes through it in one go. What does not fit stays in the kernel.
4. A connection has one request in progress. What its client sends behind that waits.
5. The log takes one complaint of a kind in a while.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from supervisor.asgi import borrowed
from supervisor.asgi.acceptor import Acceptor
from supervisor.asgi.borrowed import Site, make_config
from supervisor.core import door
from supervisor.core.door import Deadlines, Doing, Limits, is_overdue, whom_to_end
from supervisor.daemon.identities import Identity
from supervisor.daemon.requests import WholeRequests, malformed
from supervisor.daemon.seldom import Seldom
from supervisor.errors import Refused
from supervisor.host import peer
from supervisor.host.sources import Arrival, SpareBacklog

logger = logging.getLogger("stillup.door")
logger.addFilter(Seldom())

BACKLOG: Final = socket.SOMAXCONN
"""Callers that may wait to be taken. When it is full a connect() that does not block fails with EAGAIN (unix(7)), and
curl's does not: a crowd that comes at once is to find room here."""
SPARE: Final = 4
"""Connections that can be taken when no descriptor is free: 'status' has to answer then above all."""
MOST_READ: Final = 16 * 1024
"""Bytes that are read from a connection at a time, and those of a head."""
UNHEARD: Final = 64
"""Requests of one user that go on though he has left, or may: a reload is not called off by that."""
MOST_UNHEARD: Final = 256
"""Those of all users but root and the supervisor's own."""
LAST_ANSWERS: Final = 1.0
"""Seconds for answers that are under way when the supervisor ends."""


@dataclass(slots=True, eq=False)
class _Caller:
    """A connection that was taken, until its socket is closed."""

    number: int
    uid: int
    arrival: Arrival
    protocol: Any
    since: float
    mark: tuple[Doing, int, int] = (Doing.SILENT, 0, 0)
    """What it was seen doing; it has done that since ``since``."""

    def look(self, now: float) -> door.Caller:
        """See what it does now: another request, or an answer that its client reads from, is something new."""
        doing = borrowed.doing(self.protocol)
        mark = doing, self.protocol.requests, borrowed.unsent(self.protocol)
        if mark != self.mark:
            self.mark, self.since = mark, now
        return door.Caller(self.number, self.uid, doing, self.since)


class ControlDoor:
    """Serves the control API on a listening socket; owns it and its connections."""

    def __init__(
        self,
        sock: socket.socket,
        app: Any,
        meet: Callable[[socket.socket], Identity],
        *,
        name: str = "control.sock",
        limits: Limits | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """Serve ``app``, which finds in its state whom ``meet`` saw; ``name`` is what the log calls this door."""
        config = make_config(
            WholeRequests(app, self._has_room),
            {
                "http": "h11",
                "ws": "none",
                "lifespan": "off",
                "proxy_headers": False,
                "access_log": False,
                "log_config": None,
                "server_header": False,
                "timeout_keep_alive": 60,
                "h11_max_incomplete_event_size": MOST_READ,
            },
        )
        self._name = name
        self._meet = meet
        self._limits = limits or Limits(privileged=frozenset({0, os.geteuid()}))
        self._deadlines = deadlines or Deadlines()
        self._site = Site(config)
        self._site.most_read = MOST_READ
        self._site.logger = logger
        self._site.malformed = malformed
        self._site.load()
        self._callers: dict[int, _Caller] = {}
        """By their numbers, and so in the order in which they came."""
        self._last = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        sock.listen(BACKLOG)
        self._acceptor = Acceptor(SpareBacklog("control", sock, SPARE), self._protocol)
        self._acceptor.start()

    def _protocol(self, arrival: Arrival) -> asyncio.Protocol | None:
        principal = peer.principal(arrival.socket)
        try:
            leaving = whom_to_end(self._look(), principal.uid, self._limits)
        except Refused as refusal:
            logger.warning("%s: %s turned away: %s", self._name, principal, refusal)
            arrival.socket.close()
            return None
        if leaving is not None:
            self._end(leaving, f"{principal} comes, and there are too many")
        self._site.refresh_headers()
        # Not before: whoever is turned away is not looked at, and costs no descriptor.
        protocol = self._site.protocol({"identity": self._meet(arrival.socket)}, arrival)
        self._last += 1
        self._callers[self._last] = _Caller(self._last, principal.uid, arrival, protocol, self._loop.time())
        if self._timer is None:
            self._wait()
        return protocol

    def _has_room(self, uid: int, answering: Counter[int]) -> bool:
        privileged = self._limits.privileged
        others = sum(count for one, count in answering.items() if one not in privileged)
        return answering[uid] < self._limits.per_uid + UNHEARD and (
            uid in privileged or others < self._limits.most + MOST_UNHEARD
        )

    def _look(self) -> list[door.Caller]:
        """What those who are here are doing."""
        now = self._loop.time()
        for number in [number for number, caller in self._callers.items() if caller.arrival.socket.fileno() < 0]:
            del self._callers[number]
        return [caller.look(now) for caller in self._callers.values()]

    def _wait(self) -> None:
        self._timer = self._loop.call_later(
            min(self._deadlines.asking, self._deadlines.reading) / 10, self._see_to_them
        )

    def _see_to_them(self) -> None:
        """End those who are too slow, and those who have left while nobody read what they send."""
        now = self._loop.time()
        self._timer = None
        for caller in self._look():
            if is_overdue(caller, now, self._deadlines):
                self._end(caller, "too slow")
            elif caller.doing is Doing.BUSY and peer.has_hung_up(self._callers[caller.number].arrival.socket):
                self._end(caller, "its client has left")
        if self._callers:
            self._wait()

    def _end(self, caller: door.Caller, why: str) -> None:
        logger.debug("%s: a connection of uid %d that was %s ends: %s", self._name, caller.uid, caller.doing.name, why)
        borrowed.abort(self._callers.pop(caller.number).protocol)

    async def close(self) -> None:
        """Take no more callers, let answers that are under way go out, then hang up on everybody.

        To be called last: a caller who waits for the supervisor's end sees it by this.
        """
        await self._acceptor.stop()
        if self._site.state.tasks:
            await asyncio.wait(self._site.state.tasks, timeout=LAST_ANSWERS)
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._site.state.connections):
            borrowed.abort(connection)
        await asyncio.sleep(0)  # a turn for the transports to close their sockets
