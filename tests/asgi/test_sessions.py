"""WebSockets that go on: a client keeps its connection, and its app's state, at another worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn.config import WS_PROTOCOLS
from uvicorn.importer import import_from_string

from stillup.asgi.resumption import RESUMING
from stillup.core.drain import ConnectionClass
from stillup.wire.figure_cells import ANSWERS
from tests.asgi.crossing_pair import Crossing, crossing
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Served, skip_without_websockets
from tests.asgi.session_app import Peer, SessionApp, frame

pytestmark = pytest.mark.usefixtures("loop_factory")

DEFLATES = ["", "permessage-deflate", "permessage-deflate; client_max_window_bits"]


@contextlib.asynccontextmanager
async def sessions(*, new: Any = None, **options: Any) -> AsyncIterator[Crossing]:
    """An old and a new worker whose app hands over."""
    skip_without_websockets("websockets-sansio")
    new = new or SessionApp("new")
    async with crossing(SessionApp(), new_app=new, ws="websockets-sansio", **options) as pair:
        yield pair


def session_app(served: Served) -> SessionApp:
    assert isinstance(served.app, SessionApp)
    return served.app


def told_of(served: Served) -> list[str]:
    """What its app has received that was no message."""
    return session_app(served).told


def follow(pair: Crossing, connection: Any) -> None:
    """Offer it to the queue whenever it changes, as a drain does."""
    pair.old.site.on_change = pair.sender.offer
    connection.follow(pair.old.site.changed)


async def hand_over(pair: Crossing) -> None:
    """Ask the old worker's apps, and send what they hand over."""
    for connection in list(pair.old.site.connections):
        follow(pair, connection)
        connection.ask()
    await until(lambda: not pair.old.site.connections)


async def move(pair: Crossing) -> None:
    """The same, and take it up."""
    count = len(pair.old.site.connections) + len(pair.new.site.connections)
    await hand_over(pair)
    await pair.taken(count)


@pytest.mark.parametrize("deflate", DEFLATES)
async def test_it_goes_on(deflate: str) -> None:
    """The state and the compression are those of the worker before; the client sees nothing."""
    async with sessions() as pair:
        peer = await Peer.dial(pair.old, deflate=deflate)
        assert await peer.say("a" * 200) == f"old 1 {'a' * 200}"
        assert await peer.say("b" * 200) == f"old 2 {'b' * 200}"
        assert pair.old.kinds == [ConnectionClass.SESSION]
        await move(pair)
        assert await peer.say("a" * 200) == f"new 3 {'a' * 200}"
        assert await peer.say("b" * 200) == f"new 4 {'b' * 200}"
        await peer.send(frame(9, b"still there?"))
        assert await peer.frame() == (10, b"still there?")
        await peer.send(frame(8, (1001).to_bytes(2)))
        assert await peer.code() == 1001
        await until(lambda: told_of(pair.new) == ["websocket.disconnect 1001"])
        assert told_of(pair.old) == ["handoff"]


@pytest.mark.parametrize("deflate", ["", DEFLATES[-1]])
@pytest.mark.parametrize("size", [300, 70_000])
async def test_half_a_frame(deflate: str, size: int) -> None:
    """Wherever a frame is cut, its first part is read here and the rest there."""
    async with sessions() as pair:
        peers = []
        for cut in (1, 3, 5, 9, 13, 40, -1):
            peer = await Peer.dial(pair.old, deflate=deflate)
            await peer.say("abc" * 500)
            text = ("abcdef" * size)[:size]
            whole = peer.text(text)
            if cut < len(whole):
                await peer.send(whole[:cut])
                peers.append((peer, text, whole[cut:]))
        await move(pair)
        for peer, text, rest in peers:
            await peer.send(rest)
            assert await peer.hear() == f"new 2 {text}"
            assert await peer.say("more" * 300) == f"new 3 {'more' * 300}"


async def test_messages_that_wait_travel() -> None:
    """What the app has not received when it is asked is for the next one, in its order; so is what is half here."""
    async with sessions() as pair:
        peer = await Peer.dial(pair.old)
        await peer.say("first")
        sent = [peer.text(f"{number}") for number in range(20)]
        binary = frame(2, b"\xff\xfe")
        connection = pair.old.connection
        follow(pair, connection)
        connection.transport.pause_reading()
        await peer.send(b"".join(sent) + binary + peer.text("half")[:-2])
        connection.transport.resume_reading()
        connection.ask()
        await until(lambda: not pair.old.site.connections)
        await pair.taken()
        heard = [(await peer.frame())[1] for _ in range(21)]
        names = {said.split()[0] for said in heard[:20]}
        assert [said.split()[1:] for said in heard[:20]] == [[b"%d" % (n + 2), b"%d" % n] for n in range(20)]
        assert heard[20] == b"\xff\xfe"
        assert {b"new"} <= names <= {b"old", b"new"}


async def test_fragments() -> None:
    """A message whose first fragment is here comes to its end before its app is asked; pings are answered meanwhile."""
    async with sessions() as pair:
        peer = await Peer.dial(pair.old)
        await peer.send(frame(1, b"one ", fin=False))
        await until(lambda: pair.old.connection.standing().arriving)
        connection = pair.old.connection
        follow(pair, connection)
        connection.ask()
        await peer.send(frame(9, b"in between"))
        assert await peer.frame() == (10, b"in between")
        assert told_of(pair.old) == []
        await peer.send(frame(0, b"two"))
        assert await peer.hear() == "old 1 one two"
        await until(lambda: not pair.old.site.connections)
        await pair.taken()
        assert await peer.say("three") == "new 2 three"


class Reluctant(SessionApp):
    """Hands over when it is told to, from outside, and not when it is asked."""

    def __init__(self) -> None:
        super().__init__("old")
        self.late = asyncio.Event()
        self.errors: list[str] = []

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "handoff": True})
        await self._try(send, b"early")

        async def read() -> None:
            while (message := await receive())["type"] != "websocket.disconnect":
                if message["type"] == "websocket.handoff":
                    self.told.append("handoff")
                else:
                    await send({"type": "websocket.send", "text": f"old {message['text']}"})
            self.told.append(f"gone {message['code']}")

        reading = asyncio.create_task(read())
        await self.late.wait()
        await self._try(send, "text")
        await self._try(send, b"x" * (2**20 + 1))
        await self._try(send, b"7")
        await self._try(send, b"again")
        with contextlib.suppress(OSError):
            await send({"type": "websocket.send", "text": "too late"})
            self.errors.append("it was sent")
        await reading

    async def _try(self, send: Any, state: Any) -> None:
        try:
            await send({"type": "websocket.handoff", "state": state})
        except (RuntimeError, TypeError, ValueError, OSError) as error:
            self.errors.append(type(error).__name__)


async def test_an_app_that_declines() -> None:
    """It is asked, goes on receiving, and hands over when it likes: in the middle of a message, which travels whole."""
    skip_without_websockets("websockets-sansio")
    async with crossing(old := Reluctant(), new_app=SessionApp("new"), ws="websockets-sansio") as pair:
        peer = await Peer.dial(pair.old)
        connection = pair.old.connection
        follow(pair, connection)
        await until(lambda: old.errors == ["RuntimeError"])
        connection.ask()
        await until(lambda: old.told == ["handoff"])
        assert await peer.say("one") == "old one"
        await peer.send(frame(1, b"two ", fin=False))
        await until(lambda: connection.standing().arriving)
        old.late.set()
        await until(lambda: old.errors == ["RuntimeError", "TypeError", "ValueError", "ClientDisconnected"])
        await peer.send(frame(0, b"three") + frame(1, b"four ", fin=False))
        await until(lambda: connection.queue.qsize() == 1)
        await peer.send(frame(0, b"five"))
        await until(lambda: not pair.old.site.connections)
        await pair.taken()
        assert [await peer.hear(), await peer.hear()] == ["new 8 two three", "new 9 four five"]
        await until(lambda: len(old.told) == 2)
        assert (old.told, old.errors[4:]) == (["handoff", "gone 1012"], [])


class Pushing(SessionApp):
    """Sends more than its client reads, and hands over while it waits for room."""

    def __init__(self) -> None:
        super().__init__("old")
        self.sent = 0
        self.refused = 0

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "handoff": True})

        async def push() -> None:
            try:
                while True:
                    await send({"type": "websocket.send", "text": f"{self.sent} {'x' * 50_000}"})
                    self.sent += 1
            except OSError:
                self.refused += 1

        pushing = asyncio.create_task(push())
        assert (await receive())["type"] == "websocket.handoff"
        await send({"type": "websocket.handoff", "state": b"%d" % self.sent})
        await pushing


async def test_a_slow_reader_gets_all_that_was_sent() -> None:
    """It leaves when the last byte that its app was told to be sent has left; what waited for room was not sent."""
    skip_without_websockets("websockets-sansio")
    if "pause_writing" not in vars(import_from_string(WS_PROTOCOLS["websockets-sansio"])):
        pytest.skip("with this uvicorn no app waits for room")
    async with crossing(old := Pushing(), new_app=SessionApp("new"), ws="websockets-sansio") as pair:
        peer = await Peer.dial(pair.old)
        connection = pair.old.connection
        await until(lambda: connection.unsent() and not connection.writable.is_set())
        follow(pair, connection)
        connection.ask()
        await until(lambda: connection.standing() is not None and not connection.standing().answering)
        connection.hear_when_sent()
        heard: list[int] = []
        while len(heard) < old.sent:
            heard.append(int((await peer.hear()).split()[0]))
        assert heard == list(range(old.sent))
        await until(lambda: not pair.old.site.connections)
        assert old.refused == 1
        await pair.taken()
        assert await peer.say("on") == f"new {old.sent + 1} on"


class Otherwise(App):
    """Does with its WebSockets what it is made to do."""

    def __init__(self, *messages: dict[str, Any], fails: bool = False) -> None:
        super().__init__()
        self.messages = messages
        self.fails = fails
        self.resuming: list[bool] = []

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        self.resuming.append(RESUMING.get())
        for message in self.messages:
            await send(message)
        if self.fails:
            raise RuntimeError("as it was to")


ACCEPT = {"type": "websocket.accept", "handoff": True}
DENIAL = [{"type": "websocket.http.response.start", "status": 401, "headers": []}]


@pytest.mark.parametrize(
    ("app", "why", "code"),
    [
        (Otherwise({"type": "websocket.accept"}), "unaware", 1012),
        (Otherwise({**ACCEPT, "subprotocol": "other"}), "subprotocol", 1012),
        (Otherwise({"type": "websocket.close", "code": 4401}), "app-closed", 4401),
        (Otherwise({"type": "websocket.close"}), "app-closed", 1000),
        (Otherwise({"type": "websocket.close", "code": 1006}), "app-closed", 1012),
        (Otherwise(*DENIAL), "app-closed", 1012),
        (Otherwise(), "app-failed", 1012),
        (Otherwise(fails=True), "app-failed", 1012),
    ],
)
async def test_who_does_not_go_on_with_it(app: Otherwise, why: str, code: int) -> None:
    """The client is told by a close code, the app's own if it has one, and never by a byte of HTTP."""
    async with sessions(new=app) as pair:
        peer = await Peer.dial(pair.old)
        await peer.say("one")
        await hand_over(pair)
        pair.adopter.start()
        assert await peer.code() == code
        assert await peer.client.rest() == b""
        assert dict(pair.new.site.refused) == {why: 1}
        assert app.resuming[-1]
        assert sum(pair.new.site.cells[ANSWERS:]) == 0, "a handshake is counted where it began"


async def test_a_new_one_is_not_resumed() -> None:
    """What an app asks to know what would run twice is false for who has just come."""
    async with sessions(new=(app := Otherwise(ACCEPT))) as pair:
        await Peer.dial(pair.new)
        assert app.resuming == [False]


@pytest.mark.parametrize("ws", ["wsproto", "none", "websockets"])
async def test_a_worker_that_cannot_go_on_with_it(ws: str) -> None:
    """One whose implementation of WebSockets is another tells the client to come again."""
    async with sessions(new_options={"ws": ws}) as pair:
        peer = await Peer.dial(pair.old)
        await peer.say("one")
        await hand_over(pair)
        pair.adopter.start()
        assert await peer.code() == 1012
        assert await peer.client.rest() == b""
        peer.client.close()  # else it is lingered for
        assert dict(pair.new.site.refused) == {"not-served": 1}
        await until(lambda: not pair.new.site.connections)


async def test_a_request_that_is_none() -> None:
    """What comes by the queue and cannot be made into a request again ends as politely."""
    async with sessions() as pair:
        peer = await Peer.dial(pair.old)
        await peer.say("one")
        connection = pair.old.connection
        connection._headers = [(name, value) for name, value in connection._headers if name != b"sec-websocket-key"]
        await hand_over(pair)
        pair.adopter.start()
        assert await peer.code() == 1012
        assert dict(pair.new.site.refused) == {"unreadable": 1}


@pytest.mark.parametrize("how", ["close", "end"])
async def test_who_leaves_in_between_leaves_the_new_app(how: str) -> None:
    """A close frame, or an end, that comes while nobody has the connection is told to the app that has it next."""
    async with sessions() as pair:
        peer = await Peer.dial(pair.old)
        await peer.say("one")
        await hand_over(pair)
        if how == "close":
            await peer.send(frame(8, (4001).to_bytes(2)))
        else:
            peer.client.close()
        pair.adopter.start()
        await until(lambda: told_of(pair.new) == [f"websocket.disconnect {4001 if how == 'close' else 1005}"])
        assert not pair.new.site.refused


async def test_the_subprotocol_stays() -> None:
    """The one that was accepted has to be accepted again, and then is the same."""
    new = SessionApp("new", subprotocol="chat")
    skip_without_websockets("websockets-sansio")
    async with crossing(SessionApp(subprotocol="chat"), new_app=new, ws="websockets-sansio") as pair:
        peer = await Peer.dial(pair.old, "Sec-WebSocket-Protocol: chat")
        await move(pair)
        assert await peer.say("on") == "new 1 on"


async def test_large_state_rides_beside() -> None:
    """State of any size up to the limit arrives, with others in the same packets, and no descriptor is left."""
    async with sessions(packet=4) as pair:
        session_app(pair.old).sizes = iter([0, 8_000, 9_000, 100_000, 2**20, 2**20, 0, 30_000, 0])
        peers = [await Peer.dial(pair.old) for _ in range(9)]
        for peer in peers:
            await peer.say("one")
        descriptors = len(os.listdir("/proc/self/fd"))
        await move(pair)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)  # some are closed a turn later
        assert [await peer.say("two") for peer in peers] == ["new 2 two"] * 9
        assert (pair.sender.sessions, pair.source.lost) == (9, 0)


async def test_what_cannot_travel_is_closed() -> None:
    """A session over the limit is told to come again; the others leave."""
    async with sessions() as pair:
        small, large = await Peer.dial(pair.old), await Peer.dial(pair.old)
        for peer in (small, large):
            await peer.say("one")
        name = large.client.sock.getsockname()
        bulky: Any
        (bulky,) = [one for one in pair.old.site.connections if one.transport.get_extra_info("peername") == name]
        bulky._headers = [*bulky._headers, (b"x", b"x" * 2**21)]
        await hand_over(pair)
        assert await large.code() == 1012
        large.client.close()  # else it is lingered for
        assert dict(pair.old.site.refused) == {"too-large": 1}
        await pair.taken()
        assert await small.say("two") == "new 2 two"
