"""For apps of Starlette and FastAPI: a WebSocket that goes on in the next worker.

    @app.websocket("/count")
    async def count(websocket: WebSocket) -> None:
        session = await resume(websocket, {"count": 0})
        async for text in session.iter_text():
            session.state["count"] += 1
            await session.send_text(f"{session.state['count']}: {text}")

Under another server, and where nobody takes over, it is what it would be without this: an accepted WebSocket.

1. It is handed over where the app receives, and nowhere else. So ``state`` is as the app left it when it came to wait
   there, and whatever it changes between two messages is handed over whole, or not at all. An app that only sends has a
   task that receives beside it, as it needs to see that its client has left.
2. What other tasks of the app send meanwhile is waited for before the state is taken; what they would send later raises
   ``HandedOver``. So a task that says in ``state``, right after a send, what it has sent, is right in either case.
3. Who gives up waiting for a message (``asyncio.timeout``) gives up nothing: the next call hands over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from stillup.worker.session_state import packed, unpacked

HANDOFF: Final = "websocket.handoff"
"""The ASGI extension, and the type of its messages."""
RESTART: Final = 1012
"""The close code of RFC 6455's registry for a service that restarts: the client is to connect again."""

S = TypeVar("S")


class HandedOver(WebSocketDisconnect):
    """The next worker goes on with this WebSocket: here it has ended, and no client has left."""

    def __init__(self) -> None:
        super().__init__(RESTART, "handed over")


class ResumableWebSocket(WebSocket, Generic[S]):
    """An accepted WebSocket whose app can hand it over. Made by ``resume``."""

    state: S = None  # type: ignore[assignment]  # a plain attribute where Starlette has a property
    """What is handed over, as JSON; that of the request is ``scope["state"]``."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, state: S, version: int, is_new: bool) -> None:
        super().__init__(scope, self._receiving, self._sending)
        self.state = state
        self.is_new = is_new
        """Whether no other worker had it before."""
        self.handed_over = False
        """Whether the next worker goes on with it; a client that merely leaves is another matter."""
        self._version = version
        self._extension = _extension(scope)
        self._from_server, self._to_server = receive, send
        self._asked = False
        self._given = False
        """Whether the server has its state."""
        self._under_way = 0
        """How many are sending."""
        self._quiet = asyncio.Event()
        """Set while nobody is."""
        self._quiet.set()

    async def _receiving(self) -> Message:
        if self._asked:
            return await self._hand_over()
        message = await self._from_server()
        if message["type"] == HANDOFF:
            return await self._hand_over()
        return message

    async def _sending(self, message: Message) -> None:
        if self.handed_over:
            if message["type"] == "websocket.close":
                return  # what is left to do here is not to the client
            raise HandedOver
        if message["type"] == "websocket.accept" and self._extension is not None:
            message = {**message, "handoff": True}
        self._under_way += 1
        self._quiet.clear()
        try:
            await self._to_server(message)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    async def _hand_over(self) -> Message:
        """Hand over, and wait until it has moved; returns the next message instead where it ended before.

        Raises:
            HandedOver: it was, here or by another task.
            TypeError: the state is no JSON.
            ValueError: it is larger than may travel. In either case the client is told to connect again.
        """
        if not self._given:
            self._asked = self.handed_over = True
            try:
                await self._quiet.wait()
                await self._to_server({"type": HANDOFF, "state": packed(self.state, self._version)})
                self._given = True
            except OSError:  # it has ended meanwhile, or another task was faster
                self._asked = self.handed_over = False
            except BaseException as error:
                self.handed_over = False
                if isinstance(error, TypeError | ValueError):
                    await self._to_server({"type": "websocket.close", "code": RESTART})
                raise
        message = await self._from_server()
        self.handed_over = bool(message.get("handoff"))
        if self.handed_over:
            raise HandedOver
        return message


async def resume(websocket: WebSocket, state: S, *, version: int = 1, **accept: Any) -> ResumableWebSocket[S]:
    """Accept a WebSocket: a new one with ``state``, or one that another worker's app handed over, with what that left.

    Args:
        websocket: as the framework gives it, not accepted yet; it is of no use afterwards.
        state: JSON; of a new one.
        version: of the state's shape. A WebSocket whose state has another is closed with 1012: its client connects
            again, and is new.
        accept: what ``WebSocket.accept`` takes; of one that goes on nothing is sent, and its subprotocol must be the
            one that it has.

    Raises:
        WebSocketDisconnect: it was closed for its state's version.
    """
    offered = _extension(websocket.scope) or {}
    is_new = "state" not in offered
    if not is_new:
        handed = unpacked(offered["state"])
        if handed.get("version") != version or "state" not in handed:
            reason = f"state of version {handed.get('version')}, not {version}"
            await websocket.close(RESTART, reason)
            raise WebSocketDisconnect(RESTART, reason)
        state = handed["state"]
    session = ResumableWebSocket(
        websocket.scope,
        websocket._receive,  # noqa: SLF001 - Starlette's own refuses messages that it doesn't know
        websocket._send,  # noqa: SLF001
        state=state,
        version=version,
        is_new=is_new,
    )
    await session.accept(**accept)
    return session


def _extension(scope: Scope) -> Mapping[str, Any] | None:
    """What the server offers; None: nobody takes over from here."""
    found: Mapping[str, Any] | None = (scope.get("extensions") or {}).get(HANDOFF)
    return found
