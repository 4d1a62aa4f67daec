"""WebSockets whose app hands them over, and that go on at another worker: uvicorn's ``WebSocketsSansIOProtocol`` alone.

The ASGI extension ``websocket.handoff`` (docs/guide.md, *Sessions*), message by message:

1. The app accepts with ``"handoff": True``: it can hand over. ``receive()`` gives it ``websocket.handoff`` once the
   worker drains, before messages that wait, and nothing more is read from the client.
2. It sends ``websocket.handoff`` with its state. From then on it has no connection: what it sends raises
   ``ClientDisconnected``, what waits is not for it. When all that it has sent before has left, the connection moves.
   ``receive()`` then gives a disconnect with ``"handoff": True``; the true one where it ends before it can move.
3. The app at the next worker is called with the request made again and the state. Its accept is not sent: it has to
   have ``"handoff": True`` and the same subprotocol. Until then nothing but pongs and a close frame is written, so
   whatever the app does instead ends in a close code: its own, or 1012.
4. An app that receives again, instead of handing over, goes on as before. It may hand over later.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.utils import ClientDisconnected

from stillup.asgi import websocket_state
from stillup.asgi.connection import Connection
from stillup.asgi.handshake_counter import CountingApp, Handshake
from stillup.asgi.lingering_close import LingeringCloseTransport
from stillup.asgi.resumption import RESUMING, state_of
from stillup.asgi.websocket_protocols import WebSocketConnection
from stillup.asgi.websocket_state import fitting, half_frame, is_in_message
from stillup.core.crossing import ResumeRefusal, Standing
from stillup.core.drain import ConnectionClass
from stillup.host.sources import Arrival
from stillup.wire.adoption_packet import ConnectionInfo
from stillup.wire.session_format import WAITING_LIMIT, OpenWebSocket

if TYPE_CHECKING:
    from stillup.asgi.site import Site

HANDOFF: Final = "websocket.handoff"
"""The extension, and the type of its messages."""
RESTART: Final = 1012
"""Service restart (IANA's registry of close codes): clients connect again."""
_QUESTION: Final = {"type": HANDOFF}
_GONE: Final = {"type": "websocket.disconnect", "code": RESTART, "reason": "handed over", "handoff": True}


class SessionConnection(WebSocketConnection):
    """Mixed into uvicorn's class."""

    site: Site
    arrival: Arrival
    takes_sessions = True
    _left: asyncio.Event
    """Set when it is no connection of ours any more; of one that was handed over."""
    _headers: list[tuple[bytes, bytes]]
    """Of its request, as the app was given them."""
    _handed: bytes | None = None
    """What the app has left to the next one."""
    _moved = False
    """Whether the queue has it."""
    _receiving: asyncio.Queue[Any]
    """What who was receiving when it was handed over still waits for."""
    _able = False
    """Whether the app has said that it can hand over."""
    _speaks = False
    """Whether what the app sends is uvicorn's affair alone: it has accepted, and not handed over."""
    _handshake: Handshake
    _resuming: OpenWebSocket | None = None
    """What goes on here, until the app has accepted it."""
    _refused = False
    _asker: Callable[[Connection], None] | None = None
    """On whose behalf it is still to be told: the drain that there was then."""
    _fitting = sys.maxsize
    """No more messages that wait may travel; found when there were too many."""
    _told = False
    _holds = False
    """Whether nothing is read since the app was told."""
    _subprotocol: str | None = None
    _look: Callable[[Connection], None] | None = None

    # Of uvicorn's class:
    send_as_uvicorn: Callable[[Any], Any]
    """Its ``send``: for each message, of which ``super()`` would take as long as all the rest here."""
    queue: asyncio.Queue[Any]
    conn: Any
    config: Any
    app: Any
    scope: Any
    request: Any
    read_paused: bool
    close_sent: bool
    handshake_complete: bool

    def connection_made(self, transport: Any) -> None:
        if isinstance(transport, LingeringCloseTransport):
            before: Any = transport.get_protocol()  # that of HTTP
            self.site, self.arrival, self.requests = before.site, before.arrival, before.requests
            super().connection_made(transport)
            return
        site = self.site
        super().connection_made(LingeringCloseTransport(transport, self.arrival.socket, site.write_batch, site.cells))
        if isinstance(self.arrival.session, OpenWebSocket):
            self._take_up(self.arrival.session)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._handed is not None:
            self._left.set()
            self._receiving.put_nowait(self._how_it_ended())

    def let_go(self) -> None:
        self._moved = True
        super().let_go()

    # What the app sees

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)  # type: ignore[misc]
        if hasattr(self, "scope") and self.site.can_move:  # else the handshake was refused
            session = self._resuming
            self.scope["extensions"][HANDOFF] = {} if session is None else {"state": session.state}
            self._headers = list(self.scope["headers"])

    async def run_asgi(self) -> None:
        app = self.app.app if isinstance(self.app, CountingApp) else self.app
        RESUMING.set(self._resuming is not None)
        handshake = self._handshake = Handshake(self.site.cells if self._resuming is None else None)

        async def until_it_left(scope: Any, receive: Any, send: Any) -> Any:
            try:
                return await app(scope, receive, send)
            finally:
                handshake.end()
                if self._resuming is not None:
                    self._refuse(ResumeRefusal.APP_FAILED)
                if self._handed is not None:
                    await self._left.wait()  # uvicorn closes when this returns

        self.app = until_it_left
        await super().run_asgi()  # type: ignore[misc]

    async def _get(self) -> Any:
        """What uvicorn's ``receive`` gets from its queue, once the worker drains. Before, that is left as it is."""
        if self._handed is not None:
            await self._left.wait()
            return self._how_it_ended()
        if self._asker is not None and self._is_movable_now():
            self._tell()
            return _QUESTION
        if self._holds and self.queue.empty():  # it was told, and receives again
            self._holds = False
            if not self.is_ending():
                self.transport.resume_reading()
        return await asyncio.Queue.get(self.queue)

    def _how_it_ended(self) -> Any:
        """What is told to the app that has handed it over, once it has left."""
        ends = (message for message in self._queued() if message["type"] == "websocket.disconnect")
        return _GONE if self._moved else next(ends)

    def send(self, message: Any) -> Any:
        if self._speaks and message["type"] == "websocket.send":
            return self.send_as_uvicorn(message)
        return self._send_rarely(message)

    async def _send_rarely(self, message: Any) -> None:
        kind = message["type"]
        self._handshake.note(message)
        if self._handed is not None or self._refused:
            raise ClientDisconnected
        if kind == HANDOFF:
            self._hand_over(message)
        elif self._resuming is not None:
            self._resume(self._resuming, message)
        else:
            accepts = kind == "websocket.accept"
            if accepts:
                self._subprotocol = message.get("subprotocol")
            await super().send(message)  # type: ignore[misc]
            if accepts:
                self._accepted(message)

    def _accepted(self, message: Any) -> None:
        self._speaks = True
        self._able = bool(message.get("handoff")) and self.site.can_move
        self._changed()

    # Handing over

    def ask(self) -> None:
        """Have the app told that it may hand over, as soon as it receives."""
        if self._handed is not None:
            return
        self._asker, self._fitting = self.site.on_change, sys.maxsize
        self.queue.get = self._get  # type: ignore[method-assign]
        waits = any(not getter.done() for getter in self.queue._getters)  # type: ignore[attr-defined]  # noqa: SLF001
        if waits and self._is_movable_now():
            self._tell()
            self.queue.put_nowait(_QUESTION)

    def _is_movable_now(self) -> bool:
        """Whether who asked still drains, and it is open, between two messages, and those that wait may travel."""
        if self._asker != self.site.on_change or self.standing() is None or self.conn.state.name != "OPEN":
            return False
        if is_in_message(self.conn) or self.queue.qsize() > self._fitting:
            return False
        self._fitting = self._count_fitting()
        return self.queue.qsize() <= self._fitting

    def _count_fitting(self) -> int:
        """How many of the messages that wait, the last first, may travel with what is half here; -1: not even that."""
        return fitting(self.queue._queue, WAITING_LIMIT - len(half_frame(self.conn)))  # type: ignore[attr-defined]  # noqa: SLF001

    def _queued(self) -> list[Any]:
        return list(self.queue._queue)  # type: ignore[attr-defined]  # noqa: SLF001

    def _tell(self) -> None:
        self._told, self._asker = True, None
        self._holds = self._holds or (not self.read_paused and self.hold())

    def _hand_over(self, message: Any) -> None:
        """The app has left its state to the next one."""
        state = state_of(message)
        if not self._told:
            raise RuntimeError(f"'{HANDOFF}' is sent once receive() has given it, and by who accepted with 'handoff'")
        if self.is_ending() or self.close_sent or self.conn.state.name != "OPEN":
            raise ClientDisconnected
        self._left = asyncio.Event()
        self._handed, self._speaks = state, False
        if hasattr(self, "stop_keepalive"):
            self.stop_keepalive()
        # What waits for room to be written, or was called before and runs only now, is not sent.
        self.conn.state = type(self.conn.state)["CLOSED"]
        # Nor is what waits given to who receives already.
        self._receiving, self.queue = self.queue, asyncio.Queue()
        self.queue.get = self._get  # type: ignore[method-assign]
        while not self._receiving.empty():
            self.queue.put_nowait(self._receiving.get_nowait())
        self.read_paused = False
        if is_in_message(self.conn):
            self._read_to_the_end()
        else:
            self.hold()
        self._changed()
        if self.site.on_change is None:  # the drain was called off meanwhile
            self.refuse(ResumeRefusal.NOT_TAKEN)

    def _read_to_the_end(self) -> None:
        """Read the rest of a message in whose middle it cannot move; it is for the next app."""

        def data_received(data: bytes) -> None:
            type(self).data_received(self, data)
            if not is_in_message(self.conn):
                self.hold()
            elif self.queue.qsize() > self._count_fitting() and not self.is_ending():
                self.refuse(ResumeRefusal.TOO_LARGE)
            elif not self.transport.is_reading():  # uvicorn reads no more once a message is whole
                self.release()
            self._changed()

        self.data_received = data_received  # type: ignore[method-assign]
        self.transport.set_protocol(self)  # uvloop looks a protocol's methods up here, once
        if not self.transport.is_reading():
            self.transport.resume_reading()

    def packed(self) -> OpenWebSocket | None:
        if self._handed is None:
            return None
        return OpenWebSocket(
            state=self._handed,
            target=self.request.path,
            headers=self._headers,
            subprotocol=self._subprotocol,
            deflate=websocket_state.deflate_of(self.conn),
            waiting=websocket_state.waiting(self._queued()),
            partial=half_frame(self.conn),
        )

    # Going on here

    def _take_up(self, session: OpenWebSocket) -> None:
        """Go on where another worker's app left it."""
        self.requests = self.arrival.info.requests if self.arrival.info is not None else 1
        self._resuming = session
        self._subprotocol = session.subprotocol
        self.handshake_complete = True  # so that nothing of HTTP is ever written
        if not self._make_request(session):
            self._refuse(ResumeRefusal.UNREADABLE)
            return
        self.conn = websocket_state.open_conn(self.config.ws_max_size, session.deflate)
        for message in websocket_state.messages(session):
            self.queue.put_nowait(message)
        if session.waiting:
            self.read_paused = True
            self.transport.pause_reading()
        if self.site.on_arrival is not None:
            self.site.on_arrival(self)
        if session.partial:
            self.data_received(session.partial)

    def _make_request(self, session: OpenWebSocket) -> bool:
        """Make the request again; whether this worker understands it as the one before did."""
        try:
            request = websocket_state.request(self.conn, session)
            if request is not None:
                self.handle_connect(request)
        except ValueError:  # bytes that this version of websockets gives uvicorn otherwise
            return False
        return request is not None

    def _resume(self, session: OpenWebSocket, message: Any) -> None:
        """The app answers the request of a WebSocket that is open already."""
        kind = message["type"]
        if kind == "websocket.accept" and not message.get("handoff"):
            self._refuse(ResumeRefusal.UNAWARE)
        elif kind == "websocket.accept" and message.get("subprotocol") != session.subprotocol:
            self._refuse(ResumeRefusal.SUBPROTOCOL)
        elif kind == "websocket.accept":
            self._resuming = None
            if hasattr(self, "start_keepalive") and not self.is_ending():
                self.start_keepalive()
            self._accepted(message)
            return
        elif kind == "websocket.close":
            self._refuse(ResumeRefusal.APP_CLOSED, message.get("code") or 1000, message.get("reason") or "")
            return
        else:
            self._refuse(ResumeRefusal.APP_CLOSED)
        raise ClientDisconnected

    def _refuse(self, why: ResumeRefusal, code: int = RESTART, reason: str = "") -> None:
        """End a WebSocket that was handed over, and does not go on here."""
        from websockets.exceptions import ProtocolError  # noqa: PLC0415

        self._resuming, self._refused = None, True
        if self.is_ending():
            return  # its client has left
        self.site.refuse(why)
        if self.conn.state.name != "OPEN":  # its request was not understood
            self.conn = websocket_state.open_conn(self.config.ws_max_size, None)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        try:
            self.conn.send_close(code, reason)
        except ProtocolError:  # no code that an app may use
            self.conn.send_close(RESTART)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()

    # What a drain asks

    def kind(self) -> ConnectionClass | None:
        if self._resuming is not None and not self.is_ending():
            return ConnectionClass.UPGRADING
        return ConnectionClass.SESSION if self.standing() is not None else super().kind()

    def standing(self) -> Standing | None:
        if not self._able or self.is_ending() or self.close_sent:
            return None
        return Standing(
            asked=True,
            answering=self._handed is None,
            streaming=False,
            event_source=False,
            arriving=is_in_message(self.conn),
            head=b"",
            unsent=self.transport.get_write_buffer_size(),
            session=True,
        )

    def follow(self, look: Callable[[Connection], None]) -> None:
        self._look = look

    def unfollow(self) -> None:
        self._look = None

    def _changed(self) -> None:
        if self._look is not None:
            self._look(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._handed is not None:
            self._changed()

    def describe(self, head: bytes, now: float) -> ConnectionInfo:  # noqa: ARG002 - it has no request's
        return ConnectionInfo(self.arrival.listener, now, self.requests)

    def end(self) -> None:
        if self._handed is not None:
            self.conn.state = type(self.conn.state)["OPEN"]
        super().end()


def session_class(protocol: Any) -> Any:
    """The class that serves WebSockets, made of uvicorn's."""
    members = {"send_as_uvicorn": protocol.send}
    return type(f"Session{protocol.__name__}", (SessionConnection, protocol), members)
