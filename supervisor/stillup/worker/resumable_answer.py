"""For apps of Starlette and FastAPI: a streamed answer that goes on in the next worker.

    @app.post("/tokens")
    async def tokens(request: Request) -> Resumable[int]:
        async def stream(start: int) -> AsyncIterator[tuple[str, int]]:
            for n in range(start, 100):
                yield await token(n), n + 1  # what is sent, and where to go on after it
        return Resumable(request, stream, 0)

Under another server, behind middleware that keeps its word to itself (BaseHTTPMiddleware) or encodes the body, and
where nobody takes over, it is what it would be without this: a ``StreamingResponse`` of the parts.

1. It is handed over where the stream waits for its next part, which is cancelled there; what was sent last says where
   the next worker's goes on. So no part is sent twice, and none is left out.
2. ``background`` runs once: in the worker that sends the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Send

from stillup.worker.app_state import current
from stillup.worker.session_state import packed, unpacked

HANDOFF: Final = "http.response.handoff"
"""The ASGI extension, and the type of its message."""

S = TypeVar("S")
Part = tuple[str | bytes | memoryview, S]


class Resumable(StreamingResponse, Generic[S]):
    """An answer whose body is a stream of parts, each with the state from which the next worker goes on after it."""

    def __init__(
        self,
        request: Request,
        stream: Callable[[S], AsyncIterator[Part[S]]],
        state: S,
        *,
        version: int = 1,
        **more: Any,
    ) -> None:
        """Answer a request.

        Args:
            request: the one that is answered; made again by the next worker, it comes to the same place.
            stream: gives the parts from a state on; called once in each worker.
            state: JSON; of a new answer.
            version: of the state's shape. An answer whose state has another is cut: its client asks again.
            more: what ``StreamingResponse`` takes beside the content; the same in each worker.
        """
        extension = (request.scope.get("extensions") or {}).get(HANDOFF)
        self._extension: dict[str, Any] | None = extension
        self._version = version
        self._goes_on = extension is not None
        if extension and "state" in extension:
            handed = unpacked(extension["state"])
            self._goes_on = handed.get("version") == version and "state" in handed
            state = handed["state"] if self._goes_on else state
        self._stream, self._state = stream, state
        super().__init__(_chunks(stream, state), **more)

    async def stream_response(self, send: Send) -> None:
        """Send the answer, or the rest of it."""
        if not self._goes_on:
            await super().stream_response(send)
            return
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send({**head, "handoff": True})
        leaving = asyncio.ensure_future(_draining())
        parts = aiter(self._stream(self._state))
        coming: asyncio.Future[Part[S] | None] | None = None
        try:
            while True:
                if leaving.done() and await self._hand_over(send):
                    self.background = None  # it is for who sends the end
                    return
                coming = coming or asyncio.ensure_future(anext(parts, None))
                awaited: set[asyncio.Future[Any]] = {coming} if leaving.done() else {coming, leaving}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    continue
                part, coming = coming.result(), None
                if part is None:
                    break
                chunk, self._state = part
                await send({"type": "http.response.body", "body": _encoded(chunk, self.charset), "more_body": True})
        finally:
            await _cancelled(leaving, coming)
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _hand_over(self, send: Send) -> bool:
        """Whether another worker goes on with it."""
        assert self._extension is not None  # noqa: S101 - for the type checker: it goes on by that
        if not self._extension.get("ready"):
            return False
        await send({"type": HANDOFF, "state": packed(self._state, self._version)})
        return bool(self._extension.get("handed"))


async def _chunks(stream: Callable[[S], AsyncIterator[Part[S]]], state: S) -> AsyncIterator[str | bytes | memoryview]:
    async for chunk, _ in stream(state):
        yield chunk


async def _draining() -> None:
    await current().draining


async def _cancelled(*futures: asyncio.Future[Any] | None) -> None:
    """Cancel what is still awaited, and see it end."""
    for future in futures:
        if future is not None and not future.done():
            future.cancel()
            with suppress(asyncio.CancelledError):
                await future


def _encoded(chunk: str | bytes | memoryview, charset: str) -> bytes | memoryview:
    return chunk.encode(charset) if isinstance(chunk, str) else chunk
