"""Serving the control API on one of its sockets, whatever clients send, or do not send.

A client costs little, and keeps no other client out:

1. There is a limit of connections, in all and for each user. ``core.caller_limits`` says which one ends for a new one.
   Who is turned away, or has to go while asking, is told so (503).
2. A request has a deadline and a size; an answer has a deadline from when its client stops reading.
3. What is read at a time is little, since a parser goes through it in one go. What does not fit stays in the kernel.
4. A connection has one request in progress. What its client sends behind that waits.
5. A caller without a right is answered once a connection, and no body of such a caller is read.
6. The log has a limited rate of warnings that a client can cause (``log_ratelimit``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from stillup.asgi.acceptor import Acceptor
from stillup.asgi.parser_h11 import H11Connection
from stillup.asgi.site import Site
from stillup.asgi.uvicorn_config import make_config
from stillup.core.access import Principal
from stillup.core.caller_limits import (
    CallerConnection,
    Deadlines,
    Doing,
    Limits,
    Newcomer,
    connection_to_end,
    is_overdue,
)
from stillup.daemon.control.peer_identities import Identity
from stillup.daemon.control.request_limits import WholeRequests, malformed, turn_away
from stillup.daemon.state.log_ratelimit import LogRatelimit
from stillup.daemon.state.thread_wait import are_done
from stillup.errors import Refused
from stillup.host import peer
from stillup.host.sources import Arrival, SpareBacklog
from stillup.wire.api_operation import ApiSocket

logger = logging.getLogger("stillup.control")
logger.addFilter(LogRatelimit())

BACKLOG: Final = socket.SOMAXCONN
"""Callers that may wait to be taken. When it is full a connect() that does not block fails with EAGAIN (unix(7)), and
curl's does not: a crowd that comes at once is to find room here."""
SPARE: Final = 4
"""Connections that can be taken when no descriptor is free: 'status' has to answer then above all."""
MOST_READ: Final = 2 * 1024
"""Bytes that are read from a connection at a time: of chunks of one byte so many take 10 ms."""
MOST_HEAD: Final = 8 * 1024
"""Bytes of a head: of headers of one letter so many take 20 ms."""
UNHEARD: Final = 64
"""Requests of one user, on top of that user's connections, that may go on after their clients have left: leaving does
not call a reload off."""
MOST_UNHEARD: Final = 256
"""The same for all users but root and the supervisor's own."""
_MAY_WAIT: Final = frozenset({Doing.SILENT, Doing.ASKING})
"""Whose client may be waiting for an answer that has not begun."""
LAST_ANSWERS: Final = 1.0
"""Seconds for answers that are under way when the supervisor ends, and for clients that were turned away."""
MOST_LEAVING: Final = 16
"""Connections that were turned away and are not closed yet."""


class _Caller(msgspec.Struct, eq=False):
    """A connection that was taken, until its socket is closed."""

    number: int
    identity: Identity
    arrival: Arrival
    connection: H11Connection
    since: float
    mark: tuple[Doing, int, int] = (Doing.SILENT, 0, 0)
    """What it was seen doing; it has done that since ``since``."""

    def look(self, now: float, has_right: Callable[[Principal], bool]) -> CallerConnection:
        """See what it does now: another request, or an answer that its client reads from, is something new."""
        doing = self.connection.doing()
        mark = doing, self.connection.requests, self.connection.unsent()
        if mark != self.mark:
            self.mark, self.since = mark, now
        who = self.identity.known()
        return CallerConnection(self.number, who.uid, doing, self.since, who.pid, has_right(who))


class ControlServer:
    """Serves the control API on a listening socket; owns it and its connections."""

    def __init__(
        self,
        sock: socket.socket,
        app: Any,
        meet: Callable[[socket.socket], Identity],
        *,
        has_right: Callable[[Principal], bool] = lambda _: True,
        is_worker: Callable[[int], bool] = lambda _: False,
        turned_away: Callable[[], None] = lambda: None,
        name: ApiSocket = ApiSocket.CONTROL,
        limits: Limits | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """Begin to serve.

        Args:
            sock: bound; it is made to listen.
            app: finds the caller's Identity in ``scope["state"]["identity"]``.
            meet: begins to find out who has connected.
            has_right: whether that caller has a role here.
            is_worker: whether that is the pid of a worker of ours.
            turned_away: counts a connection for which there is no room.
            name: which of our sockets it is.
            limits: of connections; by default root and our own user are privileged.
            deadlines: of requests and answers.
        """
        config = make_config(
            WholeRequests(app, self._has_room, has_right),
            {
                "http": "h11",
                "ws": "none",
                "lifespan": "off",
                "proxy_headers": False,
                "access_log": False,
                "log_config": None,
                "server_header": False,
                "timeout_keep_alive": 60,
                "h11_max_incomplete_event_size": MOST_HEAD,
            },
        )
        self.name = name
        self._meet = meet
        self._has_right = has_right
        self._is_worker = is_worker
        self._turned_away = turned_away
        self._limits = limits or Limits(privileged=frozenset({0, os.geteuid()}))
        self._deadlines = deadlines or Deadlines()
        self._site = Site(config)
        self._site.most_read = MOST_READ
        self._site.logger = logger
        self._site.malformed = malformed
        self._site.load()
        self._callers: dict[int, _Caller] = {}
        """By number, which is the order in which they connected."""
        self._last = 0
        self._leaving: deque[socket.socket] = deque()
        """Those that were turned away; some of them are closed."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        sock.listen(BACKLOG)
        self._acceptor = Acceptor(SpareBacklog("control", sock, SPARE), self._protocol)
        self._acceptor.start()

    def serve(self, sock: socket.socket) -> None:
        """Serve a connection that somebody else has accepted here."""
        sock.setblocking(False)
        self._acceptor.serve([Arrival(sock, "control", sock.family == socket.AF_UNIX)])

    def _protocol(self, arrival: Arrival) -> asyncio.Protocol | None:
        principal = peer.principal(arrival.socket)
        has_right = self._has_right(principal) and not self._is_worker(principal.pid)
        newcomer = Newcomer(principal.uid, principal.pid, has_right)
        try:
            leaving = connection_to_end(self._look(), newcomer, self._limits)
        except Refused as refusal:
            logger.warning("%s: %s turned away: %s", self.name, principal, refusal)
            self._turned_away()
            self._turn_away(arrival.socket, str(refusal))
            return None
        if leaving is not None:
            if leaving.doing in _MAY_WAIT:
                turn_away(self._callers[leaving.number].arrival.socket, "busy: others came, and there are too many")
            self._end(leaving, f"{principal} comes, and there are too many")
        self._site.refresh_headers()
        # Not before: a client that is turned away is not identified, and costs no descriptor.
        identity = self._meet(arrival.socket)
        connection = cast("H11Connection", self._site.protocol({"identity": identity}, arrival))
        self._last += 1
        self._callers[self._last] = _Caller(self._last, identity, arrival, connection, self._loop.time())
        if self._timer is None:
            self._wait()
        return connection

    def _turn_away(self, sock: socket.socket, why: str) -> None:
        """Say that there is no room. Its request may come yet: closed at once, the client would fail to send it."""
        turn_away(sock, why)
        if len(self._leaving) == MOST_LEAVING:
            self._leaving.popleft().close()
        self._leaving.append(sock)
        self._loop.call_later(LAST_ANSWERS, sock.close)

    def _has_room(self, uid: int, answering: Counter[int]) -> bool:
        privileged = self._limits.privileged
        others = sum(count for one, count in answering.items() if one not in privileged)
        return answering[uid] < self._limits.per_uid + UNHEARD and (
            uid in privileged or others < self._limits.most + MOST_UNHEARD
        )

    def _look(self) -> list[CallerConnection]:
        """What each connection is doing now."""
        now = self._loop.time()
        for number in [number for number, caller in self._callers.items() if caller.arrival.socket.fileno() < 0]:
            del self._callers[number]
        return [caller.look(now, self._has_right) for caller in self._callers.values()]

    def _wait(self) -> None:
        self._timer = self._loop.call_later(
            min(self._deadlines.asking, self._deadlines.reading) / 10, self._end_overdue
        )

    def _end_overdue(self) -> None:
        """End connections that are too slow, and those whose client has left while nothing was read from them."""
        now = self._loop.time()
        self._timer = None
        for caller in self._look():
            if is_overdue(caller, now, self._deadlines):
                self._end(caller, "too slow")
            elif caller.doing is Doing.BUSY and peer.has_hung_up(self._callers[caller.number].arrival.socket):
                self._end(caller, "its client has left")
        if self._callers:
            self._wait()

    def _end(self, caller: CallerConnection, why: str) -> None:
        logger.debug("%s: a connection of uid %d that was %s ends: %s", self.name, caller.uid, caller.doing.name, why)
        self._callers.pop(caller.number).connection.abort()

    async def close(self) -> None:
        """Take no more callers, let answers that are under way go out, then hang up on everybody.

        To be called last: a caller who waits for the supervisor's end sees it by this.
        """
        await self._acceptor.stop()
        if self._site.state.tasks:
            await are_done(self._site.state.tasks, LAST_ANSWERS)
        if self._timer is not None:
            self._timer.cancel()
        for sock in self._leaving:
            sock.close()
        for connection in list(self._site.connections):
            connection.abort()
        await asyncio.sleep(0)  # a turn for the transports to close their sockets
