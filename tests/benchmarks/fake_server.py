"""A server that a test can put in the wrong, for a load that must notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import uvicorn

from benchmarks.load import Target
from tests.asgi.event_loops import until


@dataclass
class Answering:
    """Answers every request head with what ``answer`` makes of its path."""

    answer: Callable[[str], bytes]
    generation: str = "1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(self.answer(head.split()[1].decode()))
                await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Target]:
        """Listen on a free port."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield Target.parse(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        finally:
            server.close()
            await server.wait_closed()

    def ok(self, body: bytes = b"ok\n", *headers: str) -> bytes:
        """A whole answer."""
        lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", f"x-gen: {self.generation}", *headers, "", ""]
        return "\r\n".join(lines).encode() + body


@contextlib.asynccontextmanager
async def serving_benchmarks_app(http: str) -> AsyncIterator[Target]:
    """The application under load, in this process, under plain uvicorn."""
    # Not the 5 s of uvicorn's: who is idle for longer, on a machine that others use, would have been hung up on.
    config = uvicorn.Config("benchmarks.app:app", port=0, http=http, log_level="error", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started or serving.done())
    try:
        yield Target.parse(f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        await serving
