"""A body that turns out to be no HTTP while its request is answered."""

from __future__ import annotations

import logging

import pytest

from tests.asgi.event_loops import until
from tests.asgi.served_app import serving

pytestmark = pytest.mark.usefixtures("loop_factory")


@pytest.mark.parametrize(("path", "begins"), [("/held", b"HTTP/1.1 400 "), ("/halves", b"HTTP/1.1 200 ")])
async def test_garbage_in_a_body(caplog: pytest.LogCaptureFixture, path: str, begins: bytes) -> None:
    """A bad chunk ends its connection; the app may answer afterwards what it likes, and no error is logged."""
    async with serving(http="h11") as served:
        client = await served.connect()
        await client.ask(path, "Transfer-Encoding: chunked", method="POST")
        await served.waits()
        await client.send(b"zz\r\n")
        answer = await client.rest()
        assert answer.startswith(begins)
        assert answer.count(b"HTTP/1.1") == 1
        served.app.go.set()
        await until(lambda: not served.site.state.tasks)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR and record.name != "asyncio"]
