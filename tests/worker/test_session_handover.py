"""Drains beside a successor: WebSockets that go on, and those that do not."""

from __future__ import annotations

import asyncio
import errno
import itertools
from typing import Any

import msgspec
import pytest

from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass, HurriedStreams, Rule
from stillup.host import sealed_memory
from stillup.wire.adoption_packet import INLINE_LIMIT
from stillup.worker import connection_sender, session_asking
from stillup.worker.connection_count import count
from tests.asgi.event_loops import until
from tests.asgi.served_app import skip_without_websockets
from tests.asgi.session_app import Peer, SessionApp
from tests.worker.drainable_worker import Worker, a_queue, idle, still, working
from tests.worker.full_queue import empty, fill, packets

pytestmark = pytest.mark.usefixtures("loop_factory")
SANSIO = "websockets-sansio"


@pytest.fixture(autouse=True)
def _here() -> None:
    skip_without_websockets(SANSIO)


def worker(name: str = "old", app: SessionApp | None = None) -> Any:
    return working(app=app or SessionApp(name), ws=SANSIO)


async def peers(old: Worker, count: int) -> list[Peer]:
    """Clients that have had an answer."""
    made = [await Peer.dial(old.served) for _ in range(count)]
    for peer in made:
        assert await peer.say("one") == "old 1 one"
    return made


async def test_all_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are asked in one turn; the drain is over, nobody was closed, and each goes on with its own."""
    monkeypatch.setattr(session_asking, "AT_ONCE", 3)
    with a_queue() as queue:
        async with worker() as old, worker("new") as new:
            clients = await peers(old, 8)
            begun, sender, task = old.hand_over(queue, sessions=True)
            new.adopt(queue)
            await task
            assert (sender.sessions, begun.closed, dict(begun.cut)) == (8, 0, {})
            assert [await peer.say("two") for peer in clients] == ["new 2 two"] * 8
            assert not old.served.site.refused


async def test_a_hurry_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that is to end what is endless at once lets them go on, as they are on their way."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.WEBSOCKET, Rule(handover=0.0, final=0.0, endless=True))
    with a_queue() as queue:
        async with worker() as old, worker("new") as new:
            (peer,) = await peers(old, 1)
            begun, _, task = old.hand_over(queue, sessions=True)
            begun.hurry(HurriedStreams.ALL)
            new.adopt(queue)
            await task
            assert await peer.say("two") == "new 2 two"


async def test_who_takes_over_does_not_know_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside workers of an earlier stillup they end with 1012, and their app is not asked."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.WEBSOCKET, Rule(handover=0.0, final=0.0))
    with a_queue() as queue:
        async with worker() as old:
            (peer,) = await peers(old, 1)
            _, sender, task = old.hand_over(queue)
            assert await peer.code() == 1012
            peer.client.close()
            await task
            assert (sender.given, queue.waiting()) == (0, 0)
            assert "handoff" not in old.served.app.told


async def test_nobody_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a drain at the end of the service they end with 1012."""
    monkeypatch.setitem(rules.RULES, ConnectionClass.WEBSOCKET, Rule(handover=0.0, final=0.0))
    async with worker() as old:
        (peer,) = await peers(old, 1)
        _, task = old.drain(final=True)
        assert await peer.code() == 1012
        peer.client.close()
        await task


class Slow(SessionApp):
    """Hands over when told."""

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        async def told() -> Any:
            message = await receive()
            if message["type"] == "websocket.handoff":
                await self._wait()
            return message

        await super()._websocket(scope, told, send)


async def test_nobody_is_left_when_it_is_handed_over() -> None:
    """The stop comes between the question and the answer: the client is told at once, and it is said why."""
    with a_queue() as queue:
        async with worker(app=Slow("old")) as old:
            (peer,) = await peers(old, 1)
            begun, sender, task = old.hand_over(queue, sessions=True)
            await old.served.waits()
            assert await still(task)
            sender.stop()
            old.served.app.go.set()
            assert await peer.code() == 1012
            peer.client.close()
            await task
            assert dict(old.served.site.refused) == {"not-taken": 1}
            assert begun.closed == 0


async def test_one_that_comes_while_it_drains() -> None:
    """A WebSocket that is accepted only then is asked as soon as it is; one that goes on here goes on there."""
    with a_queue() as queue, a_queue() as before:
        async with worker() as oldest, worker() as old, worker("new") as new:
            (peer,) = await peers(oldest, 1)
            waiting = await old.served.connect()
            oldest.hand_over(before, sessions=True)
            await until(lambda: before.waiting() == 1)
            _, _, task = old.hand_over(queue, sessions=True)
            old.adopt(before)
            await asyncio.wait_for(until(lambda: queue.waiting() == 2), 60)
            await task
            new.adopt(queue)
            assert await peer.say("two") == "new 2 two"
            waiting.close()


async def test_a_hurry_ends_those_that_are_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that does not answer in its moment has its WebSocket closed, long before the drain's deadline."""
    hurried = msgspec.structs.replace(rules.RULES[ConnectionClass.SESSION], hurried=0.1)
    monkeypatch.setitem(rules.RULES, ConnectionClass.SESSION, hurried)
    with a_queue() as queue:
        async with worker(app=Slow("old")) as old:
            (peer,) = await peers(old, 1)
            begun, _, task = old.hand_over(queue, sessions=True)
            await old.served.waits()
            begun.hurry(HurriedStreams.ALL)
            assert await peer.code() == 1012
            peer.client.close()
            old.served.app.go.set()
            await task


async def test_one_that_cannot_leave_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads nothing keeps its session here, handed over as it is; at its deadline it is counted."""
    hurried = msgspec.structs.replace(rules.RULES[ConnectionClass.SESSION], hurried=0.0)
    monkeypatch.setitem(rules.RULES, ConnectionClass.SESSION, hurried)
    with a_queue() as queue:
        async with worker() as old:
            (peer,) = await peers(old, 1)
            await peer.send(peer.text("x" * 15_000_000))
            await until(lambda: next(iter(old.served.site.connections)).unsent())
            begun, sender, task = old.hand_over(queue, sessions=True)
            await until(lambda: "handoff" in old.served.app.told)
            begun.hurry(HurriedStreams.ALL)
            await until(lambda: old.served.site.refused)
            assert (dict(old.served.site.refused), sender.given) == ({"not-taken": 1}, 0)
            peer.client.close()
            await task


async def test_what_is_counted() -> None:
    """Where sessions do not move each is reported as what it is in that drain, a WebSocket with a WebSocket's time."""
    async with worker() as old:
        await peers(old, 2)
        assert await count(old.served.site, old.idle) == {"session": 2}
        assert await count(old.served.site, old.idle, sessions_move=False) == {"websocket": 2}


def large() -> SessionApp:
    """Its states ride beside their connections."""
    app = SessionApp("old")
    app.sizes = itertools.repeat(2 * INLINE_LIMIT)
    return app


async def test_no_memory_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions for which no descriptor is left wait until there is one; all else moves on, and nobody is closed."""
    free = asyncio.Event()
    real = sealed_memory.sealed

    def sealed(content: bytes) -> int:
        if free.is_set():
            return real(content)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(sealed_memory, "sealed", sealed)
    with a_queue() as queue:
        async with worker(app=large()) as old, worker("new") as new:
            clients = await peers(old, 3)
            other = await idle(old)
            begun, sender, task = old.hand_over(queue, sessions=True)
            new.adopt(queue)
            await until(lambda: sender.given == 1 and sender.waiting == 3)
            assert sender.works
            free.set()
            await task
            assert (sender.sessions, begun.closed, dict(old.served.site.refused)) == (3, 0, {})
            assert [await peer.say("two") for peer in clients] == ["new 2 two"] * 3
            await other.ask("/")
            await other.answer()


@pytest.mark.parametrize("parked", [False, True])
async def test_no_memory_at_all(monkeypatch: pytest.MonkeyPatch, *, parked: bool) -> None:
    """A session for which there is none is told to connect again, at once where nobody reads yet; all else moves on."""

    def sealed(_: bytes) -> int:
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(sealed_memory, "sealed", sealed)
    if not parked:
        monkeypatch.setattr(connection_sender, "MEMORY_PATIENCE", 0.3)
    with a_queue() as queue:
        async with worker(app=large()) as old:
            (peer,) = await peers(old, 1)
            await idle(old)
            _, sender, task = old.hand_over(queue, sessions=True)
            if parked:
                sender.park(lambda: None)
            assert await peer.code() == 1012
            peer.client.close()
            await task
            assert (sender.given, sender.waiting) == (1, 0)
            assert dict(old.served.site.refused) == {"too-large": 1}


async def test_a_packet_has_sessions_or_none() -> None:
    """Whoever does not know sessions drops a packet with one, and with it no other connection."""
    with a_queue() as queue:
        async with worker() as old:
            for _ in range(2):
                await idle(old)
                await peers(old, 1)
            filling = fill(queue)
            _, sender, task = old.hand_over(queue, sessions=True)
            await until(lambda: sender.waiting == 4)
            empty(queue, filling)
            await task
            assert (sender.given, sender.sessions) == (4, 2)
            assert all(len({info.is_session for info in packet}) == 1 for packet in packets(queue))
