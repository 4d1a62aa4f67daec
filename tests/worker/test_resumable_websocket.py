"""What apps of Starlette and FastAPI make of the extension ``websocket.handoff``; the server is a fake, or uvicorn."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

import stillup.app
from stillup.app import HandedOver, ResumableWebSocket, current, resume
from stillup.asgi.resumption import RESUMING
from tests.asgi.event_loops import DEADLINE, until
from tests.asgi.served_app import skip_without_websockets

pytestmark = pytest.mark.usefixtures("loop_factory")

HANDOFF = {"type": "websocket.handoff"}
CONNECT = {"type": "websocket.connect"}


def text(said: str) -> dict[str, str]:
    return {"type": "websocket.receive", "text": said}


class FakeServer:
    """The server's side of one WebSocket, which may be one that goes on."""

    def __init__(self, *messages: dict[str, Any], state: bytes | None = None, knows: bool = True) -> None:
        self.extension: dict[str, Any] = {} if state is None else {"state": state}
        scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "state": {}}
        if knows:
            scope["extensions"] = {HANDOFF["type"]: self.extension}
        self.to_come: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in (CONNECT, *messages):
            self.to_come.put_nowait(message)
        self.sent: list[dict[str, Any]] = []
        self.room = asyncio.Event()
        """Set while what is sent need not wait."""
        self.room.set()
        self.gone: dict[str, Any] = {"type": "websocket.disconnect", "code": 1012, "handoff": True}
        """What is received once it was handed over."""
        self.has_left = False
        """Whether its client has, so that nothing can be sent."""
        self.websocket = WebSocket(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        return self.gone if self.handed else await self.to_come.get()

    async def _send(self, message: Any) -> None:
        await self.room.wait()
        if len(message.get("state", b"")) > 2**20:
            raise ValueError("at most 1 MiB")
        if self.has_left:
            raise OSError
        self.sent.append(message)

    def ask(self) -> None:
        self.to_come.put_nowait(HANDOFF)

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    @property
    def handed(self) -> list[Any]:
        """The states that were handed over, as apps see them."""
        return [json.loads(m["state"])["state"] for m in self.sent if m["type"] == HANDOFF["type"]]

    def next(self, *messages: dict[str, Any]) -> FakeServer:
        """That of the next worker."""
        return FakeServer(*messages, state=self.sent[-1]["state"])


async def count(server: FakeServer, **more: Any) -> ResumableWebSocket[dict[str, int]]:
    """The app of the guide: it says how many texts it had."""
    session = await resume(server.websocket, {"count": 0}, **more)
    async for said in session.iter_text():
        session.state["count"] += 1
        await session.send_text(f"{session.state['count']}: {said}")
    return session


async def test_it_goes_on() -> None:
    """A state that one app leaves is the next one's, and what comes after the word to hand over is not taken."""
    first = FakeServer(text("a"), text("b"), HANDOFF, text("c"))
    session = await count(first)
    assert (session.is_new, session.handed_over) == (True, True)
    assert first.sent[0]["handoff"] is True
    second = first.next(text("c"), {"type": "websocket.disconnect", "code": 1000})
    session = await count(second)
    assert (session.is_new, session.handed_over) == (False, False)
    assert second.sent[0]["handoff"] is True
    assert first.texts + second.texts == ["1: a", "2: b", "3: c"]


async def test_without_the_extension() -> None:
    """Under another server it is an accepted WebSocket, with the state that it was given, and says nothing more."""
    server = FakeServer(text("a"), {"type": "websocket.disconnect", "code": 1000}, knows=False)
    session = await count(server, subprotocol="chat", headers=[(b"x", b"y")])
    assert server.sent[0] == {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x", b"y")]}
    assert server.texts == ["1: a"]
    assert (session.is_new, session.handed_over) == (True, False)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (b'{"version":1,"state":{}}', "version 1, not 2"),
        (b'{"version":2}', "version 2"),
        (b"[1]", "version None"),
        (b"\xff", "version None"),
        (b"", "version None"),
    ],
)
async def test_another_state(state: bytes, reason: str) -> None:
    """One whose state this app cannot read is told to connect again, and never accepted."""
    server = FakeServer(state=state)
    with pytest.raises(WebSocketDisconnect, match="state of"):
        await resume(server.websocket, {}, version=2)
    (closed,) = server.sent
    assert (closed["type"], closed["code"]) == ("websocket.close", 1012)
    assert reason in closed["reason"]


@pytest.mark.parametrize("state", [object(), float("nan"), "x" * 2**20])
async def test_state_that_cannot_travel(state: object) -> None:
    """The app's author is told what is wrong with it, nothing was handed over, and the client is to connect again."""
    server = FakeServer(HANDOFF)
    session: ResumableWebSocket[Any] = await resume(server.websocket, {"who": state})
    with pytest.raises((TypeError, ValueError), match=r"has to be JSON|at most"):
        await session.receive_text()
    assert (session.handed_over, server.handed) == (False, [])
    assert server.sent[-1] == {"type": "websocket.close", "code": 1012}


async def test_what_is_sent_meanwhile_is_in_the_state() -> None:
    """The state is taken once another task's send is done, and what that said of it; its next send is refused."""
    server = FakeServer()
    session = await resume(server.websocket, {"next": 0})

    async def push() -> None:
        while True:
            await session.send_text(str(session.state["next"]))
            session.state["next"] += 1

    server.room.clear()
    pushing, receiving = asyncio.create_task(push()), asyncio.create_task(session.receive_text())
    server.ask()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server.handed == []
    server.room.set()
    for task in (pushing, receiving):
        with pytest.raises(HandedOver):
            await task
    assert server.handed == [{"next": 1}]
    assert server.texts == ["0"]


async def test_who_stops_waiting_is_asked_again() -> None:
    """A receive that is given up in the middle of handing over leaves the session as it was; the next hands over."""
    server = FakeServer()
    session = await resume(server.websocket, {"next": 0})
    server.room.clear()
    sending = asyncio.create_task(session.send_text("last"))
    receiving = asyncio.create_task(session.receive_text())
    server.ask()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert session.handed_over
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert not session.handed_over
    server.room.set()
    await sending
    session.state["next"] = 1
    with pytest.raises(HandedOver):
        await session.receive_text()
    assert server.handed == [{"next": 1}]


async def test_who_has_left_is_not_handed_over() -> None:
    """Its client leaves while the state waits for a send: the app is given what it has still to receive."""
    server = FakeServer()
    session = await resume(server.websocket, 0)
    server.room.clear()
    sending = asyncio.create_task(session.send_text("last"))
    receiving = asyncio.create_task(session.receive_text())
    server.ask()
    await until(lambda: session.handed_over)
    server.has_left = True
    for message in (text("words"), {"type": "websocket.disconnect", "code": 1001}):
        server.to_come.put_nowait(message)
    server.room.set()
    # An earlier Starlette lets the server's own error pass.
    turns_it = "except OSError" in inspect.getsource(WebSocket.send)
    with pytest.raises(WebSocketDisconnect if turns_it else OSError):
        await sending
    assert await receiving == "words"
    assert (await session.receive(), session.handed_over) == ({"type": "websocket.disconnect", "code": 1001}, False)


async def test_one_that_nobody_took() -> None:
    """Its state was given, and it ended before it could move: the app is told of a disconnect, its client's."""
    server = FakeServer(HANDOFF)
    server.gone = {"type": "websocket.disconnect", "code": 1005}
    session = await resume(server.websocket, 0)
    with pytest.raises(WebSocketDisconnect) as ended:
        await session.receive_text()
    assert (ended.value.code, type(ended.value), session.handed_over) == (1005, WebSocketDisconnect, False)
    assert server.handed == [0]


async def test_afterwards() -> None:
    """What the app still does is as after a disconnect; closing, as its clean-up may, is no error and does nothing."""
    server = FakeServer(HANDOFF)
    session = await resume(server.websocket, 0)
    for _ in range(2):
        with pytest.raises(HandedOver):
            await session.receive_text()
    with pytest.raises(WebSocketDisconnect):
        await session.send_text("late")
    await session.close()
    assert [message["type"] for message in server.sent] == ["websocket.accept", "websocket.handoff"]


async def test_resuming() -> None:
    """``current().resuming`` is what the server says of the task that calls the app, and of threads that it asks in."""
    assert not current().resuming

    async def app() -> tuple[bool, bool]:
        RESUMING.set(True)
        return current().resuming, await asyncio.to_thread(lambda: current().resuming)

    assert await asyncio.create_task(app()) == (True, True)
    assert not current().resuming


def test_no_other_name() -> None:
    """A name that the module lacks is missing, as in any other."""
    with pytest.raises(AttributeError, match="'resumable'"):
        stillup.app.resumable  # noqa: B018


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_under_uvicorn(ws: Any) -> None:
    """The app of the guide counts under plain uvicorn, and ends when its client leaves."""
    skip_without_websockets(ws)
    ended: asyncio.Queue[tuple[bool, bool]] = asyncio.Queue()

    async def counting(websocket: WebSocket) -> None:
        session = await resume(websocket, {"count": 0})
        async for said in session.iter_text():
            session.state["count"] += 1
            await session.send_text(f"{session.state['count']}: {said}")
        ended.put_nowait((session.is_new, session.handed_over))

    app = Starlette(routes=[WebSocketRoute("/", counting)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws=ws, log_level="error"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}") as client:
            await client.send("a")
            await client.send("b")
            assert [await client.recv(), await client.recv()] == ["1: a", "2: b"]
        assert await asyncio.wait_for(ended.get(), DEADLINE) == (True, False)
    finally:
        server.should_exit = True
        await serving
