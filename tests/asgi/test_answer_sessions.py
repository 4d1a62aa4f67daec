"""Answers that one worker's app hands over, and another's goes on with; message by message, to the byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.asgi.answer_sessions import HANDOFF, head_of
from stillup.asgi.resumption import RESUMING
from stillup.wire.session_format import BODY_LIMIT, STATE_LIMIT, OpenAnswer
from tests.asgi.crossing_pair import Crossing, crossing, standing
from tests.asgi.event_loops import until
from tests.asgi.served_app import HEAD_END, App, Client

Headers = list[tuple[bytes, bytes]]
CHUNKED: Headers = [(b"content-type", b"text/plain")]
SIZED = [*CHUNKED, (b"content-length", b"6")]


class Telling(App):
    """Its answers say what they are told to; what they were asked with is seen from outside."""

    def __init__(
        self, headers: list[tuple[bytes, bytes]] = CHUNKED, *, status: int = 200, handoff: bool = True
    ) -> None:
        super().__init__()
        self.start = {"type": "http.response.start", "status": status, "headers": headers, "handoff": handoff}
        self.orders: asyncio.Queue[Any] = asyncio.Queue()
        self.asked: list[tuple[Any, bytes]] = []
        """The scope and the body of each request."""
        self.resuming: list[bool] = []
        self.handed: list[bool] = []
        """Of each attempt to hand over, whether it was taken."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked.append((scope, body))
        self.resuming.append(RESUMING.get())
        extension = scope["extensions"][HANDOFF]
        await send(dict(self.start))
        while (order := await self.orders.get()) is not None:
            if isinstance(order, Exception):
                raise order
            if isinstance(order, bytes):
                await send({"type": "http.response.body", "body": order, "more_body": True})
                continue
            await send({"type": HANDOFF, **order})
            self.handed.append("handed" in extension)
            if self.handed[-1] and self.orders.empty():
                return
        await send({"type": "http.response.body", "body": b""})

    def say(self, *orders: Any) -> None:
        for order in orders:
            self.orders.put_nowait(order)


@contextlib.asynccontextmanager
async def streaming(new: App | None = None, **options: Any) -> AsyncIterator[Crossing]:
    """A worker that drains, with others that know sessions, and one that takes over."""
    old = options.pop("old", None) or Telling()
    async with crossing(old, new_app=new or Telling(), **options) as pair:
        pair.old.site.gives_sessions = lambda: True
        yield pair


async def hand_over(pair: Crossing, state: bytes = b"1") -> None:
    """Have the old app hand over what it streams, and send it."""
    told: Any = pair.old.app
    told.say({"state": state})
    await until(lambda: told.handed)
    assert told.handed == [True]
    assert standing(pair.old).session
    await pair.given()


async def begun(
    pair: Crossing, *parts: bytes, ask: tuple[str, ...] = (), body: bytes = b"", path: str = "/s?q=1"
) -> Client:
    """A client whose answer has begun, and who has these parts of it."""
    client = await pair.old.connect()
    await client.ask("/s?q=1", *ask, method="POST" if body else "GET")
    await client.send(body)
    told: Any = pair.old.app
    told.say(*parts)
    await client.read_to(HEAD_END)
    for part in parts:
        await client.read_to(part)
    return client


async def test_a_chunked_answer_goes_on(http: str) -> None:
    """The app is called with the request made again; the client sees one answer, and its connection is kept."""
    async with streaming(http=http) as pair:
        body = b"x" * 1000
        ask = (f"Content-Length: {len(body)}", "Content-Type: a/b", "X-Twice: 1", "X-Twice: 2", "Expect: 100-continue")
        client = await pair.old.connect()
        await client.ask("/s%20s?q=1", *ask, method="POST")
        await client.read_to(HEAD_END)  # 100 Continue
        await client.send(body)
        old, new = pair.old.app, pair.new.app
        assert isinstance(old, Telling)
        assert isinstance(new, Telling)
        old.say(b"first ")
        await client.read_to(b"6\r\nfirst \r\n")
        await hand_over(pair, b"the state")
        await pair.taken()
        new.say(b"second", None)
        assert await client.read_to(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"
        ((was, sent), (made, again)) = old.asked[0], new.asked[0]
        assert sent == again == body
        for name in ("method", "path", "raw_path", "query_string", "headers", "http_version", "client", "scheme"):
            assert made[name] == was[name], name
        assert (old.resuming, new.resuming) == ([False], [True])
        assert made["extensions"][HANDOFF] == {"state": b"the state", "ready": True}
        new.say(b"more", None)
        await client.ask("/")
        assert (await client.read_to(b"0\r\n\r\n")).endswith(b"4\r\nmore\r\n0\r\n\r\n")
        assert new.resuming == [True, False]
        assert not pair.new.site.refused


async def test_an_answer_of_known_length_goes_on(http: str) -> None:
    """Its second half is as long as it has to be."""
    async with streaming(Telling(SIZED), old=Telling(SIZED), http=http) as pair:
        client = await begun(pair, b"abc")
        await hand_over(pair)
        await pair.taken()
        new: Any = pair.new.app
        new.say(b"def", None)
        assert await client.read_to(b"def") == b"def"
        new.say(b"uvwxyz", None)
        await client.ask("/")
        assert (await client.read_to(b"uvwxyz")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_what_was_asked_behind_it_is_answered_there(http: str) -> None:
    """The beginning of the next request is read here, and its end there."""
    async with streaming(http=http) as pair:
        client = await begun(pair, b"a")
        await client.send(b"GET /next HT")
        await asyncio.sleep(0)
        await hand_over(pair)
        await pair.taken()
        new: Any = pair.new.app
        new.say(b"b", None, b"c", None)
        await client.send(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        await client.read_to(b"1\r\nb\r\n0\r\n\r\n")
        assert (await client.read_to(b"0\r\n\r\n")).endswith(b"1\r\nc\r\n0\r\n\r\n")
        assert [scope["path"] for scope, _ in new.asked] == ["/s", "/next"]


async def test_where_nobody_takes_over_it_goes_on_here(http: str) -> None:
    """The extension does not say that it was taken, and what the app sends is sent."""
    async with crossing(Telling(), http=http) as pair:
        client = await begun(pair, b"a")
        told: Any = pair.old.app
        told.say({"state": b""}, b"b", None)
        assert await client.read_to(b"0\r\n\r\n") == b"\r\n1\r\nb\r\n0\r\n\r\n"
        assert told.handed == [False]


@pytest.mark.parametrize(
    ("start", "ask"),
    [
        ({"headers": [*CHUNKED, (b"Content-Encoding", b"gzip")]}, ()),
        ({"headers": [*CHUNKED, (b"trailer", b"x")]}, ()),
        ({"handoff": False}, ()),
        ({}, ("Connection: keep-alive, upgrade", "Upgrade: h2c")),
    ],
    ids=["encoded", "trailers", "without a word", "upgrade"],
)
async def test_an_answer_that_cannot_go_on(start: dict[str, Any], ask: tuple[str, ...], http: str) -> None:
    """It is not ready, whatever the app sends then."""
    old = Telling()
    old.start.update(start)
    async with streaming(old=old, http=http) as pair:
        client = await begun(pair, b"a", ask=ask)
        old.say({"state": b""}, b"b", None)
        assert (await client.read_to(b"0\r\n\r\n")).endswith(b"1\r\nb\r\n0\r\n\r\n")
        assert old.handed == [False]
        assert not old.asked[0][0]["extensions"][HANDOFF].get("ready")


async def test_a_body_that_is_too_large_to_be_sent_again(http: str) -> None:
    """It stays, as does an answer while the body still arrives."""
    async with streaming(http=http) as pair:
        body = b"x" * (BODY_LIMIT + 1)
        client = await begun(pair, b"a", ask=(f"Content-Length: {len(body)}",), body=body)
        told: Any = pair.old.app
        told.say({"state": b""}, b"b", None)
        await client.read_to(b"1\r\nb\r\n0\r\n\r\n")
        assert told.handed == [False]


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (Telling(handoff=False), "unaware"),
        (Telling(status=401), "app-closed"),
        (Telling([(b"content-type", b"text/html")]), "other-answer"),
        (Telling(SIZED), "other-answer"),
        (Telling([*CHUNKED, (b"content-encoding", b"gzip")]), "other-answer"),
    ],
    ids=["unaware", "refused", "other type", "other length", "encoded"],
)
async def test_another_answer_is_none(new: Telling, why: str, http: str) -> None:
    """It is cut: not one byte of what the app says instead is sent."""
    new.orders, new.asked = asyncio.Queue(), []
    async with streaming(new, http=http) as pair:
        client = await begun(pair, b"a")
        await hand_over(pair)
        new.say(b"wrong", None)
        pair.adopter.start()
        assert await client.rest() == b"\r\n"
        client.close()
        await until(lambda: not pair.new.site.connections)
        assert dict(pair.new.site.refused) == {why: 1}


async def test_an_app_that_fails_before_it_goes_on(http: str) -> None:
    """No 500 in the middle of an answer."""

    class Failing(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise ZeroDivisionError

    async with streaming(http=http) as pair:
        client = await begun(pair, b"a")
        await hand_over(pair)
        await pair.new.site.lifespan.shutdown()
        pair.new.site._directly = (pair.new.site._directly[0], Failing())
        pair.adopter.start()
        assert await client.rest() == b"\r\n"
        client.close()
        await until(lambda: not pair.new.site.connections)
        assert dict(pair.new.site.refused) == {"app-failed": 1}


async def test_who_fails_after_it_has_handed_over(http: str) -> None:
    """The connection leaves all the same."""
    async with streaming(http=http) as pair:
        client = await begun(pair, b"a")
        told: Any = pair.old.app
        told.say({"state": b""}, ZeroDivisionError())
        await until(lambda: told.handed)
        await until(lambda: not pair.old.site.state.tasks)
        await pair.given()
        await pair.taken()
        new: Any = pair.new.app
        new.say(b"b", None)
        await client.read_to(b"1\r\nb\r\n0\r\n\r\n")


async def test_who_leaves_in_between_leaves_the_new_app(http: str) -> None:
    """The new app is told so, and cut off once."""
    async with streaming(http=http) as pair:
        client = await begun(pair, b"a")
        await hand_over(pair)
        client.close()
        await pair.taken()
        await until(lambda: not pair.new.site.connections)
        new: Any = pair.new.app
        new.say(b"b", None)
        assert not pair.new.site.refused


async def test_a_state_that_cannot_be(http: str) -> None:
    """The app is told, and its answer goes on."""
    async with streaming(http=http) as pair:
        errors: list[str] = []

        async def tries(send: Any) -> None:
            for state in ("text", b"x" * (STATE_LIMIT + 1)):
                try:
                    await send({"type": HANDOFF, "state": state})
                except (TypeError, ValueError) as error:
                    errors.append(type(error).__name__)

        class Trying(Telling):
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    await send(dict(self.start))
                    await tries(send)
                    await send({"type": "http.response.body", "body": b"whole"})

        pair.old.site._directly = (pair.old.site._directly[0], Trying())
        client = await pair.old.connect()
        await client.ask("/")
        assert (await client.read_to(b"0\r\n\r\n")).endswith(b"5\r\nwhole\r\n0\r\n\r\n")
        assert errors == ["TypeError", "ValueError"]


@given(body=st.binary(max_size=100), names=st.lists(st.sampled_from([b"a", b"content-length", b"expect", b"b"])))
def test_the_request_made_again_is_one(body: bytes, names: list[bytes]) -> None:
    """Its body has its own length, whatever the headers of before said."""
    head, _, rest = head_of(OpenAnswer(b"", "POST", "/", [(name, b"1") for name in names], 200, body=body)).partition(
        HEAD_END
    )
    lines = head.split(b"\r\n")[1:]
    assert rest == body
    assert sorted(line for line in lines if not line.startswith(b"content-length")) == sorted(
        name + b": 1" for name in names if name in (b"a", b"b")
    )
    assert [line for line in lines if line.startswith(b"content-length")] == (
        [b"content-length: %d" % len(body)] if body else []
    )
