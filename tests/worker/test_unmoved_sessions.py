"""WebSockets that are asked, or handed over, and do not move: their client leaves, or the drain is called off."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.websockets import WebSocket

from stillup.app import resume
from stillup.asgi import websocket_sessions, websocket_state
from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass, Rule
from tests.asgi.event_loops import until
from tests.asgi.served_app import skip_without_websockets
from tests.asgi.session_app import Peer, SessionApp, frame
from tests.worker.drainable_worker import Worker, a_queue, working

pytestmark = pytest.mark.usefixtures("loop_factory")
SANSIO = "websockets-sansio"


@pytest.fixture(autouse=True)
def _here() -> None:
    skip_without_websockets(SANSIO)


class Busy(SessionApp):
    """Waits after "busy" until it may go on, and keeps what it has heard."""

    def __init__(self, name: str = "old") -> None:
        super().__init__(name)
        self.heard: list[str] = []
        self.answers = True
        self.end = ""

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        session = await resume(WebSocket(scope, receive, send), 0)
        async for said in session.iter_text():
            self.heard.append(said)
            if said == "busy":
                await self._wait()
            elif self.answers:
                await session.send_text(f"{self.name} {said}")
        self.end = "handed over" if session.handed_over else "has left"


async def busy(old: Worker) -> tuple[Peer, Any, Busy]:
    """A client whose app is busy, and its connection."""
    peer = await Peer.dial(old.served)
    await peer.send(peer.text("busy"))
    await old.served.waits()
    assert isinstance(old.served.app, Busy)
    return peer, old.served.connection, old.served.app


async def test_who_leaves_while_its_app_is_busy() -> None:
    """The app hears its last words, and that it has left, and is not asked any more."""
    with a_queue() as queue:
        async with working(app=Busy(), ws=SANSIO) as old:
            peer, connection, app = await busy(old)
            _, sender, task = old.hand_over(queue, sessions=True)
            await until(lambda: connection._asker)
            await peer.send(peer.text("last words") + frame(8, (1000).to_bytes(2)))
            await until(connection.is_ending)
            peer.client.close()
            app.answers = False
            app.go.set()
            await until(lambda: app.end)
            assert (app.heard, app.end) == (["busy", "last words"], "has left")
            await task
            assert sender.given == 0


async def test_a_drain_that_is_called_off() -> None:
    """An app that was busy all along is not asked later, in a worker that serves; the next drain asks it."""
    with a_queue() as queue, a_queue() as later:
        async with working(app=Busy(), ws=SANSIO) as old, working(app=SessionApp("new"), ws=SANSIO) as new:
            peer, connection, app = await busy(old)
            begun, _, task = old.hand_over(queue, sessions=True)
            await until(lambda: connection._asker)
            begun.call_off()
            await task
            app.go.set()
            assert await peer.say("one") == "old one"
            assert not old.served.site.refused
            _, _, task = old.hand_over(later, sessions=True)
            await until(lambda: app.end)
            assert app.end == "handed over"
            await task
            assert later.waiting() == 1
            assert not new.served.site.refused


class Told(SessionApp):
    """Takes its time for its state."""

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "handoff": True})
        assert (await receive())["type"] == "websocket.handoff"
        await self._wait()
        await send({"type": "websocket.handoff", "state": b"7"})
        ended = await receive()
        assert ended == await receive()
        self.told.append(f"{ended['code']} {ended.get('handoff', False)}")


async def test_a_second_drain_while_it_makes_its_state() -> None:
    """One that was told in a drain that was called off hands over in the next one."""
    with a_queue() as queue, a_queue() as later:
        async with working(app=(app := Told()), ws=SANSIO) as old, working(app=SessionApp("new"), ws=SANSIO) as new:
            peer = await Peer.dial(old.served)
            begun, _, task = old.hand_over(queue, sessions=True)
            await old.served.waits()
            begun.call_off()
            await task
            connection: Any = old.served.connection
            connection._asker = None
            _, _, task = old.hand_over(later, sessions=True)
            await until(lambda: connection._asker)
            app.go.set()
            await task
            new.adopt(later)
            assert await peer.say("on") == "new 8 on"
            await until(lambda: app.told == ["1012 True"])


async def test_one_that_nobody_takes() -> None:
    """An app that hands over in vain is told of a disconnect that is none of one that goes on."""
    with a_queue() as queue:
        async with working(app=(app := Told()), ws=SANSIO) as old:
            peer = await Peer.dial(old.served)
            _, sender, task = old.hand_over(queue, sessions=True)
            await old.served.waits()
            sender.stop()
            app.go.set()
            assert await peer.code() == 1012
            peer.client.close()
            await task
            await until(lambda: app.told == ["1012 False"])


async def test_more_waits_than_may_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages are not measured at each ``receive``; the app is told once those that are left may travel."""
    measured, real = [0], websocket_state.fitting

    def measuring(messages: Any, limit: int) -> int:
        measured[0] += 1
        return real(messages, limit)

    monkeypatch.setattr(websocket_sessions, "fitting", measuring)
    monkeypatch.setattr(websocket_sessions, "WAITING_LIMIT", 100 * (16 + 1) + 8)
    with a_queue() as queue:
        async with working(app=Busy(), ws=SANSIO) as old, working(app=Busy("new"), ws=SANSIO) as new:
            peer, connection, app = await busy(old)
            connection.transport.pause_reading()
            await peer.send(peer.text("x") * 400)
            connection.transport.resume_reading()
            await until(lambda: connection.queue.qsize() == 400)
            _, _, task = old.hand_over(queue, sessions=True)
            await until(lambda: connection._asker)
            app.go.set()
            await task
            assert app.heard == ["busy", *["x"] * 300]
            assert measured[0] == 2
            new.adopt(queue)
            heard = [await peer.hear() for _ in range(400)]
            assert heard[299:301] == ["old x", "new x"]


async def test_an_http_class_of_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside one that nobody here knows WebSockets are served as ever; they end with the worker."""
    from stillup.asgi import site  # noqa: PLC0415
    from stillup.asgi.unknown_connection import UnknownConnection  # noqa: PLC0415

    monkeypatch.setitem(rules.RULES, ConnectionClass.WEBSOCKET, Rule(handover=0.0, final=0.0))
    monkeypatch.setattr(site, "connection_class", lambda known: type("Unknown", (UnknownConnection, known), {}))
    with a_queue() as queue:
        async with working(app=SessionApp(), ws=SANSIO) as old:
            peer = await Peer.dial(old.served)
            assert await peer.say("one") == "old 1 one"
            old.hand_over(queue, sessions=True)
            assert await peer.code() == 1012
            peer.client.close()
