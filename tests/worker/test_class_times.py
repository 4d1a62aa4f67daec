"""Each class of connection has its own time in a drain, and what is cut is told in one line, as no error."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from stillup.core.drain import ClassTimeouts, ConnectionClass, HurriedStreams
from stillup.worker import connection_drain
from tests.asgi.event_loops import until
from tests.worker.drainable_worker import LONG, idle, still, working

pytestmark = pytest.mark.usefixtures("loop_factory")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again soon at what makes no sound; what was cut ends by itself, however long the machine stands still."""
    monkeypatch.setattr(connection_drain, "RELOOK", 0.02)
    monkeypatch.setattr(connection_drain, "LAST_WORDS", LONG)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the worker logs as a warning or worse; no line of it may be an error."""
    caplog.set_level(logging.DEBUG, "uvicorn.error")
    lines: list[str] = []
    yield lines
    lines += [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not [record for record in caplog.records if record.exc_info and record.levelno > logging.DEBUG]


async def test_each_has_its_own_time(http: str, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A request and a task behind its answer are cut when their time is over; a streaming answer goes on to its end."""
    async with working(http=http) as worker:
        held, after, stream, file = [await worker.served.connect() for _ in range(4)]
        await held.ask("/held")
        await after.ask("/background")
        await after.answer()
        await stream.ask("/events")
        await stream.read_to(b"data: 1\n\n")
        await file.ask("/halves")
        await file.read_to(b"half")
        await worker.served.waits(4)
        begun, task = worker.drain(timeouts=ClassTimeouts(requests=0.2, streams=LONG, websockets=0.0))
        assert b" 500 " in await held.rest()
        await until(lambda: worker.served.app.ended == ["CancelledError"] * 2)
        await until(lambda: begun.cut == {"in-progress": 1, "background": 1})
        assert await still(task)
        worker.served.app.go.set()
        assert b"bye" in await stream.read_to(b"bye")
        assert await file.rest() == b"half"
        for client in (held, after, stream, file):
            client.close()
        await task
        assert begun.cut == {"in-progress": 1, "background": 1}
        assert worker.served.app.ended[2:] == ["done"] * 2


@pytest.mark.parametrize("path", ["/events", "/halves"])
async def test_a_stream_at_its_own_deadline(
    http: str, said: list[str], caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """A streaming answer is cut when its own time is over: its client sees that it is not whole; it is no error."""
    async with working(http=http) as worker:
        client = await worker.served.connect()
        await client.ask(path)
        await worker.served.waits()
        begun, task = worker.drain(timeouts=ClassTimeouts(requests=0.05, streams=0.2, websockets=0.0))
        rest = await client.rest()
        assert not rest.endswith(b"0\r\n\r\n")
        client.close()
        await task
        assert worker.served.app.ended == ["CancelledError"]
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(lines) == 1
        assert re.fullmatch(r"drain ended 1 stream after \d+\.\d s", lines[0])
        assert begun.cut == {"stream": 1}


async def test_a_websocket_has_its_own_time(http: str) -> None:
    """With a time of its own a WebSocket goes on after its app was told, and is closed with 1012 when it is over."""
    async with working(http=http) as worker:
        client = await worker.dial()
        begun, task = worker.drain(timeouts=ClassTimeouts(requests=0.5, streams=LONG, websockets=LONG / 2))
        await client.send("still here")
        assert await client.recv() == "still here"
        worker.pass_time(LONG / 2 - 0.2)
        begun.hurry(HurriedStreams.NONE)  # all are looked at again, by the time that it is now
        await client.wait_closed()
        assert client.close_code == 1012
        assert LONG / 2 <= begun._age() < LONG
        await task
        assert begun.cut == {}


async def test_who_is_hurried_at_the_limit(http: str) -> None:
    """Only an answer to a GET of an EventSource is ended at once; then, by an operator's word, all that is endless."""
    async with working(http=http) as worker:
        source, tokens = [await worker.served.connect() for _ in range(2)]
        await source.ask("/events")
        await tokens.ask("/events", "Content-Length: 0", method="POST")
        for client in (source, tokens):
            await client.read_to(b"data: 1\n\n")
        websocket = await worker.dial()
        begun, task = worker.drain(timeouts=ClassTimeouts(requests=LONG, streams=LONG, websockets=LONG))
        assert await still(task)
        begun.hurry(HurriedStreams.EVENT_SOURCES)
        await source.rest()
        source.close()
        await until(lambda: len(worker.served.kinds) == 2)
        assert await still(task)
        assert set(worker.served.kinds) == {ConnectionClass.STREAM, ConnectionClass.WEBSOCKET}
        begun.hurry(HurriedStreams.ALL)
        begun.hurry(HurriedStreams.EVENT_SOURCES)  # as another reload that waits would
        await tokens.rest()
        tokens.close()
        await websocket.wait_closed()
        assert websocket.close_code == 1012
        await task
        assert begun.cut == {"stream": 2}


async def test_a_request_becomes_a_stream(http: str) -> None:
    """A request whose answer begins late in a drain has a stream's time from then on."""
    async with working(http=http) as worker:
        client, upload = await worker.served.connect(), await worker.served.connect()
        await client.ask("/halves", "Content-Length: 4", method="POST")
        await worker.served.waits()
        begun, task = worker.drain(timeouts=ClassTimeouts(requests=0.1, streams=LONG, websockets=0.0))
        await upload.ask("/upload", "Content-Length: 4", method="POST")
        assert b" 500 " in await upload.rest()
        assert ConnectionClass.STREAM in begun.oldest()
        assert await still(task)
        worker.served.app.go.set()
        await client.rest()
        client.close()
        upload.close()
        await task


async def test_idle_is_kept_no_longer_than_requests(http: str) -> None:
    """What cannot move and asks nothing is closed when the time of requests is over, not when that of streams is."""
    async with working(http=http) as worker:
        client = await idle(worker)
        _, task = worker.drain(timeouts=ClassTimeouts(requests=0.1, streams=LONG, websockets=LONG))
        assert await client.rest() == b""
        client.close()
        await task
