"""A real server, Site and Acceptor on a loopback socket, its app, and a client that says exactly what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from uvicorn.config import WS_PROTOCOLS

from stillup.asgi.acceptor import Acceptor
from stillup.asgi.site import Site
from stillup.asgi.uvicorn_config import make_config
from stillup.core.drain import ConnectionClass
from stillup.host.sources import Backlog
from tests.asgi.event_loops import DEADLINE, until

HEAD_END = b"\r\n\r\n"
LISTENER = "web"


class App:
    """An ASGI app; what its requests wait for and what became of them is seen from outside."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        """What every request that waits waits for."""
        self.begun = 0
        """Requests that have come to where they wait."""
        self.ended: list[str] = []
        """How each request that waited ended: ``done``, or the name of what was raised."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            kind = scope["path"].strip("/") or "index"
            await getattr(self, f"_{kind}")(scope, receive, send)

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["state"]["seen"] = ["by the lifespan"]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _wait(self) -> None:
        self.begun += 1
        try:
            await self.go.wait()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("done")

    async def _index(self, _: Any, receive: Any, send: Any) -> None:
        await _answer(send, b"ok")

    async def _held(self, _: Any, receive: Any, send: Any) -> None:
        """Answer when told."""
        await self._wait()
        await _answer(send, b"at last")

    async def _halves(self, _: Any, receive: Any, send: Any) -> None:
        """Begin the answer at once, end it when told."""
        await _begin(send, 8)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await self._wait()
        await send({"type": "http.response.body", "body": b"half"})

    async def _upload(self, _: Any, receive: Any, send: Any) -> None:
        """Answer with the body, once all of it is here."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await _answer(send, body)

    async def _events(self, scope: Any, receive: Any, send: Any) -> None:
        """An endless answer, ended when told, or when the worker drains if the app was given its state."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        stillup = scope["state"].get("stillup")
        if stillup is not None:
            self.begun += 1
            await stillup.draining
            self.ended.append("told")
        else:
            await self._wait()
        await send({"type": "http.response.body", "body": b"data: bye\n\n"})

    async def _listens(self, _: Any, receive: Any, send: Any) -> None:
        """Wait for the client to leave."""
        await receive()
        self.begun += 1
        self.ended.append((await receive())["type"])

    async def _background(self, _: Any, receive: Any, send: Any) -> None:
        """Answer at once, and have something to do after it."""
        await _answer(send, b"ok")
        await self._wait()

    async def _scope(self, scope: Any, receive: Any, send: Any) -> None:
        """Say what the request looks like from here, and leave a mark in its state."""
        seen = {"client": scope["client"], "scheme": scope["scheme"], "state": sorted(scope["state"])}
        scope["state"]["mark"] = "of a request"
        await _answer(send, json.dumps(seen).encode())

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/held":
            await self._wait()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        self.ended.append(f"websocket {message['code']}")


def skip_without_websockets(implementation: str) -> None:
    """Skip the test where this uvicorn has no such implementation: ``websockets-sansio`` came with 0.35."""
    if implementation not in WS_PROTOCOLS:
        pytest.skip(f"this uvicorn has no {implementation}")


async def _begin(send: Any, length: int) -> None:
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _answer(send: Any, body: bytes) -> None:
    await _begin(send, len(body))
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def says_close(self) -> bool:
        return "close" in self.all("connection")


class Client:
    """One end of a real connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is sent in two pieces comes in two
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._read = b""

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def ask(self, path: str, *headers: str, method: str = "GET") -> None:
        """Send a request's head, and no body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        await self.send("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")

    async def read_to(self, mark: bytes) -> bytes:
        """What comes up to and with the mark."""
        while mark not in self._read:
            data = await self._loop.sock_recv(self.sock, 65536)
            assert data, f"the connection ended before {mark!r}, after {self._read!r}"
            self._read += data
        head, _, self._read = self._read.partition(mark)
        return head + mark

    async def answer(self) -> Answer:
        """One whole answer that says its length."""
        status, *lines = (await self.read_to(HEAD_END)).decode().rstrip().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = [(name.lower(), value) for name, value in pairs]
        length = int(dict(headers)["content-length"])
        while len(self._read) < length:
            data = await self._loop.sock_recv(self.sock, 65536)
            assert data, "the answer was cut off"
            self._read += data
        body, self._read = self._read[:length], self._read[length:]
        return Answer(int(status.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Everything until the server's side ends."""
        rest, self._read = self._read, b""
        while data := await self._loop.sock_recv(self.sock, 1 << 20):
            rest += data
        return rest

    def reset(self) -> None:
        """Leave with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


@dataclass
class Served:
    """A served app."""

    app: App
    site: Site
    acceptor: Acceptor
    address: Any
    family: int
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        """A new connection, which the server has taken."""
        before = len(self.site.connections)
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        client = Client(sock)
        self.clients.append(client)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        await until(lambda: len(self.site.connections) > before)
        return client

    @property
    def connection(self) -> Any:
        """The server's side of the only connection: one of ours, with all that uvicorn's class has."""
        (connection,) = self.site.connections
        return connection

    @property
    def kinds(self) -> list[ConnectionClass | None]:
        """The class of every connection."""
        return [connection.kind() for connection in self.site.connections]

    async def becomes(self, kind: ConnectionClass | None) -> None:
        """Wait until the only connection is of that class."""
        await until(lambda: self.kinds == [kind])

    async def waits(self, requests: int = 1) -> None:
        """Wait until so many requests have come to where they wait."""
        await until(lambda: self.app.begun >= requests)


@contextlib.asynccontextmanager
async def serving(
    app: App | None = None,
    *,
    unix: bool = False,
    app_state: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve an app; whatever is left of it in the end is broken off. Skips what this uvicorn has no WebSockets for.

    An idle connection is kept for longer than a test waits, unless that is what is tested.
    """
    skip_without_websockets(options.get("ws", "auto"))
    app = app or App()
    family = socket.AF_UNIX if unix else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind("" if unix else ("127.0.0.1", 0))
    listener.listen(64)
    address = listener.getsockname()
    usual = {"log_config": None, "lifespan": "off", "timeout_keep_alive": int(DEADLINE)}
    site = Site(make_config(app, {**usual, **options}))
    site.load()
    await site.lifespan.startup()
    state = site.lifespan.state if app_state is None else app_state
    acceptor = Acceptor(Backlog(LISTENER, listener), partial(site.protocol, state), tls=site.config.ssl)
    acceptor.start()
    served = Served(app, site, acceptor, address, family)
    try:
        yield served
    finally:
        await acceptor.stop()
        for connection in list(site.connections):
            connection.transport.abort()
        for client in served.clients:
            client.close()
        app.go.set()
        await until(lambda: not site.connections and not site.state.tasks)
        await site.lifespan.shutdown()
