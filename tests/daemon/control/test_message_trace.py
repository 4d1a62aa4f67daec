"""The hub of those who look at the messages: nobody pays for them, nobody waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.responses import Response

from stillup.core.access import Principal
from stillup.daemon.control.message_trace import MOST_LINES, MOST_TRACERS, Trace, Tracer, TraceResponse
from stillup.daemon.control.peer_identities import Identity
from stillup.errors import Refused
from stillup.host.channel import Channel
from stillup.wire import handoff_messages, trace_messages
from stillup.wire.handoff_messages import Hello, Taken
from stillup.wire.trace_messages import TracedMessage, TraceGap, TraceLine
from tests.asgi.event_loops import until

pytestmark = pytest.mark.usefixtures("no_leak")


def _scope(path: str = "/v1/reload", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    me = Principal(uid=7, gid=7, pid=70)
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"token=s3cret",
        "headers": [(b"authorization", b"s3cret"), *headers],
        "state": {"identity": Identity(me)},
    }


async def _nothing() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def _drop(_: Any) -> None:
    pass


async def _take(tracer: Tracer, count: int) -> list[TraceLine]:
    """The next lines; those must be there."""
    lines: AsyncIterator[bytes] = tracer.lines()
    found = [trace_messages.decode(await anext(lines)) for _ in range(count)]
    await lines.aclose()  # type: ignore[attr-defined]
    return found


@contextlib.contextmanager
def _channel(hub: Trace) -> Any:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = Channel(left, limit=4096, most=4, tap=hub.tap)
    with right:
        try:
            yield here, right
        finally:
            here.close()


async def test_a_message_is_told_with_its_peer_and_descriptors() -> None:
    """Who, which way, how large, what of it may be shown, and what came with it."""
    hub = Trace({os.getpid(): "3.1"}.__getitem__)
    with _channel(hub) as (here, there):
        tracer = hub.join()
        packet = handoff_messages.encode(Hello(2, "s3cret"))
        there.send(packet)
        await here.receive()
        await here.send(handoff_messages.encode(Taken(1)), [here.fileno()])
        hello, taken = await _take(tracer, 2)
        hub.leave(tracer)
    assert isinstance(hello, TracedMessage)
    assert isinstance(taken, TracedMessage)
    assert (hello.socket, hello.direction, hello.type, hello.fields) == ("handoff", "in", "Hello", {"protocol": 2})
    assert (hello.pid, hello.uid, hello.worker, hello.size) == (os.getpid(), os.geteuid(), "3.1", len(packet))
    assert taken.direction == "out"
    assert taken.descriptors == ["unix seqpacket"]


async def test_requests_are_told_without_what_may_be_secret() -> None:
    """A request by method, path and body size, its answer by status: no query string, no header."""
    hub = Trace(lambda _: "")
    tracer = hub.join()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(b"12345", 409)(scope, receive, send)

    await hub.traced(app)(_scope("/v1/" + "x" * 1000, (b"content-length", b"3")), _nothing, _drop)
    lines = await _take(tracer, 2)
    assert b"s3cret" not in b"".join(trace_messages.encode(line) for line in lines)
    asked, answered = lines
    assert isinstance(asked, TracedMessage)
    assert isinstance(answered, TracedMessage)
    assert (asked.socket, asked.direction, asked.pid, asked.uid, asked.size) == ("control", "in", 70, 7, 3)
    assert asked.fields == {"method": "POST", "path": ("/v1/" + "x" * 1000)[:200]}
    assert (answered.direction, answered.size, answered.fields["status"]) == ("out", 5, 409)


async def test_while_nobody_looks_nothing_is_done() -> None:
    """No tap is set and nothing is wrapped before somebody looks, and after the last one has left."""
    hub = Trace(lambda _: "")
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(send)

    assert hub.tap.look is None
    first, second = hub.join(), hub.join()
    assert hub.tap.look is not None
    hub.leave(first)
    assert hub.tap.look is not None
    hub.leave(second)
    assert hub.tap.look is None
    await hub.traced(app)(_scope(), _nothing, _drop)
    assert seen == [_drop], "the app sends by what it was given"


async def test_a_slow_tracer_is_told_what_it_missed() -> None:
    """Only so many lines wait; the rest is counted, and the count stands where they would have stood."""
    hub = Trace(lambda _: "")
    with _channel(hub) as (here, there):
        slow = hub.join()

        async def tell(times: int) -> None:
            for _ in range(times):
                await here.send(handoff_messages.encode(Taken(0)))
                there.recv(4096)

        await tell(MOST_LINES + 3)
        (first,) = await _take(slow, 1)
        await tell(4)
        rest = await _take(slow, MOST_LINES + 2)
        hub.leave(slow)
    assert isinstance(first, TracedMessage)
    kinds = [line.missed if isinstance(line, TraceGap) else line.type for line in rest]
    assert kinds == [*["Taken"] * (MOST_LINES - 1), 3, "Taken", 3]


async def test_one_who_reads_misses_nothing_by_one_who_does_not() -> None:
    """Each has a queue of its own."""
    hub = Trace(lambda _: "")
    with _channel(hub) as (here, there):
        slow, quick = hub.join(), hub.join()
        for _ in range(MOST_LINES + 10):
            await here.send(handoff_messages.encode(Taken(0)))
            there.recv(4096)
            (line,) = await _take(quick, 1)
            assert isinstance(line, TracedMessage)
        assert not slow.has_room
        hub.leave(slow)
        hub.leave(quick)


async def test_a_message_that_cannot_be_shown_arrives(caplog: pytest.LogCaptureFixture) -> None:
    """A tracer never breaks what it looks at."""
    names: dict[int, str] = {}
    hub = Trace(names.__getitem__)
    with _channel(hub) as (here, there):
        hub.join()
        there.send(b"x")
        assert await here.receive() == (b"x", [])
    assert "cannot be traced" in caplog.text


async def test_only_so_many_may_look() -> None:
    """One more is refused, until one has left."""
    hub = Trace(lambda _: "")
    tracers = [hub.join() for _ in range(MOST_TRACERS)]
    with pytest.raises(Refused, match="4 traces are under way"):
        hub.join()
    hub.leave(tracers[0])
    hub.join()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_tracer_that_hangs_up_leaves_nothing(begun: bool, loop_factory: Callable[[], Any]) -> None:
    """No tap, no task, no room taken: whether it hung up before the first line or later."""
    hub = Trace(lambda _: "")
    tasks = asyncio.all_tasks()
    gone, sent = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        sent.set()

    if not begun:
        gone.set()
    response = TraceResponse(hub, contextlib.nullcontext())
    streaming = asyncio.get_running_loop().create_task(response({**_scope(), "asgi": {}}, receive, send))
    if begun:
        await sent.wait()
        assert hub.looked_at
        gone.set()
    await streaming
    assert not hub.looked_at
    assert hub.tap.look is None
    await until(lambda: asyncio.all_tasks() == tasks)


async def test_the_streams_end_with_the_supervisor() -> None:
    """What was told is sent, then the stream ends; nobody waits for a client to hang up."""
    hub = Trace(lambda _: "")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response()(scope, receive, send)

    response = TraceResponse(hub, contextlib.nullcontext())
    await hub.traced(app)(_scope(), _nothing, _drop)
    hub.end()
    await response({**_scope(), "asgi": {}}, _nothing, send)
    assert [message.get("body", b"")[:1] for message in sent] == [b"", b"{", b"{", b""]
