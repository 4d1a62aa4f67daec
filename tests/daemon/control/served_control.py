"""A control server of a test's own, with an app whose answers wait, and clients that say any bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from stillup.core.access import Principal
from stillup.core.caller_limits import Deadlines, Limits
from stillup.daemon.control.control_server import ControlServer
from stillup.daemon.control.peer_identities import Identity
from stillup.host.peer import principal
from stillup.host.socket_files import bind_unix

SOON = Deadlines(asking=10.0, reading=10.0)
"""More than a machine may stand still between two steps of a client that does as it should; ``let_pass`` ends it."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"POST /wait HTTP/1.1\r\nHost: x\r\n\r\n"


def let_pass(seconds: float) -> None:
    """Have so much time pass for this loop, now."""
    loop: Any = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds


class App:
    """Answers with the number of the request; ``/wait`` when it is told to, ``/big`` without end."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.now = self.most = 0
        """Requests in progress, and the most of them that there were."""
        self.left = 0
        """Requests whose client has left before it was answered."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await self._answer(scope, receive, send)
        self.now -= 1

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body = str(self.asked).encode()
        if scope["path"] == "/wait":
            await self._wait(receive)
        length = [] if scope["path"] in ("/big", "/stream") else [(b"content-length", str(len(body)).encode())]
        status = 405 if scope["method"] == "CONNECT" else 200  # a 200 would begin a tunnel
        await send({"type": "http.response.start", "status": status, "headers": length})
        if scope["path"] == "/stream":
            await self.go.wait()
        gone = asyncio.ensure_future(receive())
        while scope["path"] == "/big" and not gone.done():
            await send({"type": "http.response.body", "body": bytes(64 * 1024), "more_body": True})
            await asyncio.sleep(0)  # a turn, to hear of its client's end
        gone.cancel()
        await send({"type": "http.response.body", "body": body})

    async def _wait(self, receive: Any) -> None:
        gone, told = asyncio.ensure_future(receive()), asyncio.ensure_future(self.go.wait())
        await asyncio.wait({gone, told}, return_when=asyncio.FIRST_COMPLETED)
        self.left += gone.done()
        gone.cancel()
        told.cancel()


class Served:
    """A server and its clients."""

    def __init__(self, server: ControlServer, app: App, path: str) -> None:
        self.server = server
        self.app = app
        self.clients: list[Client] = []
        self._path = path

    async def connect(self, *said: bytes) -> Client:
        client = Client(*await asyncio.open_unix_connection(self._path))
        self.clients.append(client)
        for part in said:
            client.writer.write(part)
        return client

    @property
    def tasks(self) -> int:
        return len(self.server._site.state.tasks)

    @property
    def connections(self) -> set[Any]:
        return self.server._site.connections


class Client:
    """A client, which reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def end(self) -> bytes:
        """All that comes until the connection ends, in whatever way."""
        came = b""
        with contextlib.suppress(ConnectionError):
            while more := await self.reader.read(65536):
                came += more
        return came

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    limits: Limits | None = None,
    deadlines: Deadlines | None = None,
    meet: Callable[[socket.socket], Identity] | None = None,
    has_right: Callable[[Principal], bool] = lambda _: True,
) -> AsyncIterator[Served]:
    sock, file = bind_unix(str(folder / "control.sock"), 0o600, kind=socket.SOCK_STREAM, replace=True)
    sock.listen(128)
    app = App()
    meet = meet or (lambda arrived: Identity(principal(arrived)))
    opened = ControlServer(sock, app, meet, has_right=has_right, limits=limits, deadlines=deadlines)
    served = Served(opened, app, str(folder / "control.sock"))
    try:
        yield served
    finally:
        app.go.set()
        for client in served.clients:
            await client.close()
        await served.server.close()
        file.remove()
