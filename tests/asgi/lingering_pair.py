"""A client, and a protocol behind the transport that lingers when it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from stillup.asgi.lingering_close import LingeringCloseTransport, WriteBatch
from stillup.wire.figure_cells import CELLS
from tests.asgi.served_app import Client


class Recorder(asyncio.Protocol):
    """A protocol that notes what it is told."""

    def __init__(self, *, lingers: bool = True, owes: bool = True) -> None:
        self.lingers = lingers
        self.owes = lambda: owes
        self.transport: Any = None
        self.received = b""
        self.lost: list[Exception | None] = []
        self.gone = asyncio.Event()
        self.paused: list[bool] = []

    def connection_made(self, transport: Any) -> None:
        sock = transport.get_extra_info("socket")
        self.transport = (
            LingeringCloseTransport(transport, sock, WriteBatch(), [0] * CELLS) if self.lingers else transport
        )

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.paused.append(True)

    def resume_writing(self) -> None:
        self.paused.append(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)
        self.gone.set()


@contextlib.asynccontextmanager
async def connection(
    *, lingers: bool = True, window: int = 0, owes: bool = True
) -> AsyncIterator[tuple[Client, Recorder]]:
    """A TCP connection: its client, and the protocol of its server side.

    ``window`` limits what the client takes; ``owes``: whether it is in the middle of something.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.connect(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        protocol = Recorder(lingers=lingers, owes=owes)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: protocol, accepted)
        try:
            yield Client(sock), protocol
        finally:
            protocol.transport.abort()
            await protocol.gone.wait()
