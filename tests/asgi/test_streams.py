"""What is noted of an app's answers, and that nothing else is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from supervisor.asgi.streams import STREAMS, noting_streams

pytestmark = pytest.mark.usefixtures("loop_factory")

HEADERS = [(b"x-one", b"1"), (b"Content-Type", b"text/event-stream; charset=utf-8")]


@pytest.mark.parametrize("kind", [list, tuple, iter])
async def test_the_headers_arrive(kind: Callable[[Iterable[Any]], Any]) -> None:
    """A stream is noted, and all headers arrive, also where the app gives what can be read only once."""
    sent: list[Any] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": kind(HEADERS)})

    async def send(message: Any) -> None:
        sent.append(list(message["headers"]))

    scope: dict[str, Any] = {"type": "http"}
    await noting_streams(app)(scope, None, send)
    assert sent == [HEADERS]
    assert scope[STREAMS]


async def test_other_answers() -> None:
    """An answer of another type, or without headers, is not noted."""
    scope: dict[str, Any] = {"type": "http"}

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})

    async def send(_: Any) -> None:
        return

    await noting_streams(app)(scope, None, send)
    assert STREAMS not in scope
