"""An app with a pool of connections to PostgreSQL, filled at its start or when they are needed.

Of the protocol (PostgreSQL's documentation, "Frontend/Backend Protocol") it knows what a query takes. ``POSTGRES``
names the socket, ``POOL`` the size, ``EAGER`` is not empty for a pool that fills itself.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.system.gated_app import WHO, Message, Receive, Send

PROTOCOL = 196608
"""3.0."""


class PostgresError(Exception):
    """What the server says that it will not do."""


class PostgresConnection:
    """One connection, which asks one thing after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, path: str, user: str) -> PostgresConnection:
        """Connect over a Unix socket, where the server trusts its users.

        Raises:
            PostgresError: it refuses.
        """
        connection = cls(*await asyncio.open_unix_connection(path))
        words = struct.pack(">i", PROTOCOL) + f"user\0{user}\0database\0postgres\0\0".encode()
        connection._writer.write(struct.pack(">i", len(words) + 4) + words)
        try:
            await connection._until_ready()
        except BaseException:
            connection._writer.close()
            raise
        return connection

    async def ask(self, query: str) -> list[str]:
        """Run a query; the first column of each row.

        Raises:
            PostgresError: it fails.
        """
        words = query.encode() + b"\0"
        self._writer.write(b"Q" + struct.pack(">i", len(words) + 4) + words)
        return await self._until_ready()

    async def close(self) -> None:
        """Say good-bye, and wait until the server has heard it."""
        self._writer.write(b"X" + struct.pack(">i", 4))
        await self._reader.read()
        self._writer.close()

    async def _until_ready(self) -> list[str]:
        rows = []
        while True:
            kind, size = struct.unpack(">ci", await self._reader.readexactly(5))
            body = await self._reader.readexactly(size - 4)
            match kind:
                case b"D":
                    (length,) = struct.unpack(">i", body[2:6])
                    rows.append(body[6 : 6 + length].decode())
                case b"E":
                    raise PostgresError(body.replace(b"\0", b" ").decode())
                case b"Z":
                    return rows


class Pool:
    """Connections that are lent to one request at a time."""

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._room = asyncio.Semaphore(size)
        self._size = size
        self._idle: list[PostgresConnection] = []

    async def fill(self) -> None:
        """Open all."""
        self._idle = [await PostgresConnection.open(self._path, "app") for _ in range(self._size)]

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[PostgresConnection]:
        """One of them, opened if none is idle."""
        async with self._room:
            connection = self._idle.pop() if self._idle else await PostgresConnection.open(self._path, "app")
            try:
                yield connection
            finally:
                self._idle.append(connection)

    async def close(self) -> None:
        """Give all back."""
        for connection in self._idle:
            await connection.close()


_pools: list[Pool] = []


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer ``/`` by a query, and ``/stream`` with rows until the worker drains; both hold a connection meanwhile."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    async with _pools[0].lent() as connection:
        if scope["path"] == "/":
            (row,) = await connection.ask("select pg_sleep(0.05)::text || 'slept'")
            assert row == "slept"
            await _start(send, (b"content-length", b"%d" % len(WHO)))
            await send({"type": "http.response.body", "body": WHO.encode()})
            return
        await _start(send)
        is_over = False
        while not is_over:
            is_over = bool(scope["state"]["stillup"].draining)
            (row,) = await connection.ask("select pg_sleep(0.05)::text || 'row'")
            await send({"type": "http.response.body", "body": f"{row}\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"bye\n"})


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    _pools.append(Pool(os.environ["POSTGRES"], int(os.environ["POOL"])))
    try:
        if os.environ["EAGER"]:
            await _pools[0].fill()
    except PostgresError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _pools[0].close()
    await send({"type": "lifespan.shutdown.complete"})


async def _start(send: Send, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), *headers]})
