"""The control server by itself: what each kind of bad client gets, and what others get meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from pathlib import Path

import msgspec
import pytest

from stillup.core.access import Principal
from stillup.core.caller_limits import Limits
from stillup.daemon.control import control_server as module
from stillup.daemon.control.peer_identities import Identity
from stillup.daemon.control.request_limits import MOST_BODY
from stillup.daemon.state.log_ratelimit import LogRatelimit
from stillup.host import descriptors, socket_files
from stillup.wire.api_shapes import Problem
from tests.asgi.event_loops import until
from tests.daemon.control.served_control import GET, SOON, WAIT, let_pass, serving
from tests.host.slow_sockets import slow_to_close
from tests.system import malformed_requests
from tests.system.harness import FULL


async def test_a_client_that_is_slow_to_ask_is_ended(tmp_path: Path) -> None:
    """Silence, half a head, half a second head, half a body, and a body that trickles: each ends at its deadline.

    Meanwhile others are answered.
    """
    async with serving(tmp_path, deadlines=SOON) as served:
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        slow = [
            await served.connect(),
            await served.connect(GET[:-2]),
            await served.connect(GET, b"GET /v1/st"),
            await served.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"),
            await served.connect(GET, chunked, b"1\r\na\r\n"),
        ]

        ended = asyncio.gather(*(client.end() for client in slow))
        rounds = itertools.count()
        while not ended.done():
            if next(rounds) % 20 == 19:
                let_pass(SOON.asking)
            slow[-1].writer.write(b"1\r\na\r\n")
            other = await served.connect(GET)
            assert (await other.answer())[0] == 200
            await other.close()
        assert [end.count(b"200 OK") for end in await ended] == [0, 0, 1, 0, 1]


@pytest.mark.parametrize("first", [b"", WAIT])
async def test_what_takes_long_to_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    """Whoever may connect can send it, before Linux 6.16: read or left unread to the end, nobody waits for it."""
    monkeypatch.setattr(socket_files, "refuse_descriptors", lambda _: None)
    began = time.monotonic()
    with slow_to_close(inside=False) as slow, socket.socket(socket.AF_UNIX) as caller:
        async with serving(tmp_path) as served:
            caller.connect(str(tmp_path / "control.sock"))
            if first:
                caller.sendall(first)  # behind which nothing is read until it is answered
                await until(lambda: served.app.asked)
            descriptors.send(caller, GET, [slow.fileno()])
            slow.close()
            await until(lambda: served.app.asked)
            other = await served.connect(GET)
            assert (await other.answer())[0] == 200
            for connection in served.connections:
                connection.abort()
        assert time.monotonic() - began < 15  # half of what the close takes


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
async def test_a_huge_body_is_refused(tmp_path: Path, framing: bytes) -> None:
    """A body beyond the limit is answered 413 while it comes, its connection ends, and the API never hears of it."""
    async with serving(tmp_path) as served:
        client = await served.connect(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
        part = bytes(0x8000)
        while not client.reader._buffer:  # type: ignore[attr-defined]
            client.writer.write(b"8000\r\n" + part + b"\r\n")
            await client.writer.drain()
            held = [len(c.cycle.body) for c in served.connections if c.cycle]
            assert all(size <= MOST_BODY + 2 * 16384 for size in held)
        status, body = await client.answer()
        assert (status, b"problem:too-large" in body) == (413, True)
        client.writer.write_eof()
        assert await client.end() == b""
        assert served.app.asked == 0
        await client.close()


async def test_a_small_body_is_dropped(tmp_path: Path) -> None:
    """A request with a body is answered as one without, and its connection stays."""
    async with serving(tmp_path) as served:
        client = await served.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", GET)
        assert [await client.answer(), await client.answer()] == [(200, b"1"), (200, b"2")]
        await client.close()


async def test_long_heads_are_refused(tmp_path: Path) -> None:
    """A head without end is answered 400 and its connection ends; a kilobyte of URL is no such head."""
    async with serving(tmp_path) as served:
        client = await served.connect(b"GET /" + b"a" * 1024 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer())[0] == 200
        client.writer.write(b"GET /" + b"a" * 200_000)
        assert (await client.end()).startswith(b"HTTP/1.1 400 ")
        await client.close()


async def test_a_client_that_does_not_read_is_ended(tmp_path: Path) -> None:
    """An answer that nobody reads ends at its deadline, with its task; others are answered meanwhile."""
    async with serving(tmp_path, deadlines=SOON) as served:
        client = await served.connect(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: served.app.asked)
        rounds = itertools.count()
        while served.tasks:
            if next(rounds) % 20 == 19:
                let_pass(SOON.reading)
            other = await served.connect(GET)
            assert (await other.answer())[0] == 200
            await other.close()
        await client.close()


async def test_a_silent_stream_lives(tmp_path: Path) -> None:
    """A stream with nothing to say outlives every deadline: others are ended thrice while it waits."""
    async with serving(tmp_path, deadlines=SOON) as served:
        stream = await served.connect(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await stream.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        for _ in range(3):
            silent = await served.connect()
            await until(lambda: len(served.connections) == 2)
            let_pass(SOON.asking)
            assert await silent.end() == b""
            await silent.close()
        served.app.go.set()
        assert await stream.reader.readuntil(b"0\r\n\r\n") == b"1\r\n1\r\n0\r\n\r\n"
        await stream.close()


async def test_a_client_that_leaves_without_reading_its_answer_leaves_nothing(tmp_path: Path) -> None:
    """No timer keeps what there was of a connection that ended by an error."""
    async with serving(tmp_path) as served:
        client = await served.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(GET)
        await until(lambda: served.app.asked and not served.tasks)
        (protocol,) = served.connections
        assert protocol.timeout_keep_alive_task is not None
        await client.close()  # what it has not read makes that a reset (unix(7))
        await until(lambda: not served.connections)
        assert protocol.timeout_keep_alive_task is None


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """Many requests in one write are answered one after the other; at no time are two in progress."""
    async with serving(tmp_path) as served:
        many = 1000 if FULL else 300
        client = await served.connect(GET * many)
        for number in range(1, many + 1):
            assert await client.answer() == (200, str(number).encode())
            assert served.app.most == 1
        await client.close()


async def test_a_client_that_hangs_up_behind_pipelined_requests_is_noticed(tmp_path: Path) -> None:
    """Nothing is read behind a request that waits, and yet the waiting ends when its client leaves."""
    async with serving(tmp_path, deadlines=SOON) as served:
        client = await served.connect(WAIT, GET * 10_000)
        await until(lambda: served.app.asked)
        await client.close()
        let_pass(SOON.asking)  # to the next look at those that are being answered
        await until(lambda: served.app.left and not served.tasks)
        assert not served.connections


async def test_what_is_answered_when_it_ends_goes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that are under way have some time, and while the supervisor stands still that does, too."""
    monkeypatch.setattr(module, "LAST_ANSWERS", 10.0)
    async with serving(tmp_path) as served:
        client = await served.connect(WAIT)
        await until(lambda: served.app.asked)
        closing = asyncio.create_task(served.server.close())
        for _ in range(10):
            await asyncio.sleep(0)  # it waits
        let_pass(20.0)
        for _ in range(10):
            await asyncio.sleep(0)
        served.app.go.set()
        assert await client.answer() == (200, b"1")
        await closing


async def test_the_least_useful_makes_room(tmp_path: Path) -> None:
    """With all places taken, a newcomer is answered, and the oldest that never asked anything goes."""
    async with serving(tmp_path, Limits(per_uid=4, reserved=0)) as served:
        busy = await served.connect(WAIT)
        await until(lambda: served.app.asked == 1)
        idle = await served.connect(GET)
        assert await idle.answer() == (200, b"2")
        silent = [await served.connect() for _ in range(2)]
        await until(lambda: len(served.connections) == 4)
        for number in (3, 4, 5):
            newcomer = await served.connect(GET)
            assert await newcomer.answer() == (200, str(number).encode())
        ends = [await client.end() for client in (*silent, idle)]
        assert [end.partition(b"\r\n")[0] for end in ends] == [b"HTTP/1.1 503 Service Unavailable"] * 2 + [b""]
        served.app.go.set()
        assert await busy.answer() == (200, b"1")


async def test_turned_away_where_all_are_busy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where every place is taken by somebody who is being answered, newcomers are turned away; the log says so once."""
    logger = logging.getLogger("stillup.control")
    for limit in [limit for limit in logger.filters if isinstance(limit, LogRatelimit)]:
        limit._kinds.clear()
    async with serving(tmp_path, Limits(per_uid=2, reserved=0)) as served:
        busy = [await served.connect(WAIT) for _ in range(2)]
        await until(lambda: served.app.asked == 2)
        for _ in range(20):
            newcomer = await served.connect(GET)
            status, body = await newcomer.answer()
            assert (status, msgspec.json.decode(body, type=Problem).title) == (503, "unavailable")
            assert msgspec.json.decode(body, type=Problem).detail.startswith("busy: 2 connections of uid")
            assert await newcomer.end() == b""
            await newcomer.close()
        served.app.go.set()
        assert [(await client.answer())[0] for client in busy] == [200, 200]
    (said,) = [record.getMessage() for record in caplog.records if record.name == "stillup.control"]
    assert "turned away: busy: 2 connections of uid" in said


async def test_requests_that_nobody_waits_for_are_counted_by_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody whose requests go on after their client has left is refused more of them, and nobody else is."""
    monkeypatch.setattr(module, "UNHEARD", 1)
    uid = 12345

    def meet(_: socket.socket) -> Identity:
        return Identity(Principal(uid, 0, 0))

    async with serving(tmp_path, Limits(per_uid=2, reserved=0, privileged=frozenset({0})), meet=meet) as served:
        for number in range(1, 4):
            client = await served.connect(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: served.app.now == number)  # noqa: B023
            await client.close()
            await until(lambda: not served.connections)
        refused = await served.connect(GET)
        assert await refused.end() != b""
        uid = 12346
        client = await served.connect(GET)
        assert await client.answer() == (200, b"4")
        monkeypatch.setattr(module, "MOST_UNHEARD", -253)
        refused = await served.connect(GET)
        assert b"too many requests wait" in await refused.end()
        uid = 0
        root = await served.connect(GET)
        assert await root.answer() == (200, b"5")


async def test_garbage_in_a_body_is_no_bug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A chunk that is none is answered 400, ends its connection, and leaves neither a task nor an error in the log."""
    async with serving(tmp_path) as served:
        client = await served.connect(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nzz\r\n"
        )
        assert (await client.end()).startswith(b"HTTP/1.1 400 ")
        await until(lambda: not served.tasks)
        assert served.app.asked == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR and record.name != "asyncio"]


async def test_what_is_no_http_is_a_problem(tmp_path: Path) -> None:
    """A malformed request is answered like any other error: a problem document, with the version of the API."""
    async with serving(tmp_path) as served:
        client = await served.connect(b"GET / HTTP/1.1\r\nno header\r\n\r\n")
        head, _, body = (await client.end()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        lines = head.lower().splitlines()
        assert {b"content-type: application/problem+json", b"connection: close", b"stillup-api: 1.0"} <= set(lines)
        problem = msgspec.json.decode(body, type=Problem)
        assert (problem.type, problem.status) == ("urn:stillup:problem:usage", 400)
        assert problem.detail.startswith("that is no HTTP/1.1 request")
        assert served.app.asked == 0


async def test_malformed_requests_leave_nothing(tmp_path: Path) -> None:
    """Of malformed requests of every kind, each left at every point, neither a task nor a connection stays."""
    async with serving(tmp_path) as served:
        tasks = len(asyncio.all_tasks())
        for number, request in enumerate(malformed_requests.requests(1000 if FULL else 300, seed=2)):
            client = await served.connect(request)
            for _ in range(number % 10):
                await asyncio.sleep(0)  # each is left at another point
            await client.close()
        await until(lambda: not served.tasks and not served.connections)
        assert len(asyncio.all_tasks()) == tasks


async def test_a_pause_takes_no_answer_away_that_is_under_way_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last answers have their time, and what the machine stands still is no more than a part of it."""
    monkeypatch.setattr(module, "LAST_ANSWERS", 10.0)
    async with serving(tmp_path) as served:
        client = await served.connect(WAIT)
        await until(lambda: served.app.now == 1)
        closing = asyncio.create_task(served.server.close())
        for _ in range(5):
            await asyncio.sleep(0)
        let_pass(20.0)
        for _ in range(5):
            await asyncio.sleep(0)
        served.app.go.set()
        assert (await client.answer())[0] == 200
        await closing


def test_complaints_are_seldom() -> None:
    """One of a kind passes in a while, and says how many did not; other kinds and errors pass."""
    clock = [0.0]
    seldom = LogRatelimit(10.0, lambda: clock[0])

    def passes(message: str, level: int = logging.WARNING) -> str | None:
        record = logging.LogRecord("x", level, "", 0, message, (1,), None)
        return record.getMessage() if seldom.filter(record) else None

    assert passes("a %d") == "a 1"
    assert [passes("a %d") for _ in range(3)] == [None, None, None]
    assert passes("b %d") == "b 1"
    assert [passes("a %d", logging.ERROR) for _ in range(2)] == ["a 1", "a 1"]
    clock[0] = 10.0
    assert passes("a %d") == "a 1 (and 3 more like it)"
    assert passes("a %d") is None
