"""Whoever connects to an agent check is answered at once, whatever it sends, and holds nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from stillup.daemon.control.agent_server import AgentServer

pytestmark = pytest.mark.usefixtures("no_leak")


@contextlib.asynccontextmanager
async def served(word: str) -> AsyncIterator[tuple[str, int]]:
    """Where an agent answers with that."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    address = sock.getsockname()
    server = AgentServer(sock, lambda: word)
    try:
        yield address
    finally:
        await server.close()


async def _told(address: tuple[str, int], sent: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_a_line_and_its_end() -> None:
    """To each, as many as there are."""
    async with served("up 50%") as address:
        assert await asyncio.gather(*(_told(address) for _ in range(50))) == [b"up 50%\n"] * 50


async def test_what_it_is_sent_does_not_destroy_the_answer() -> None:
    """HAProxy may send something first (``agent-send``)."""
    async with served("up 0%") as address:
        assert await _told(address, b"shop\n") == b"up 0%\n"


def _leave(address: tuple[str, int], times: int) -> None:
    """Connect, and reset it."""
    for _ in range(times):
        with socket.create_connection(address) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def test_who_has_left_costs_nothing() -> None:
    """Reset before it was answered, a thousand times: the next one is answered."""
    async with served("down #0 of 2 workers serve") as address:
        await asyncio.to_thread(_leave, address, 1000)
        assert await _told(address) == b"down #0 of 2 workers serve\n"


def _take_all(fd: int, stack: contextlib.ExitStack) -> None:
    """Copy a descriptor until there is no other left."""
    most = max(map(int, os.listdir("/proc/self/fd"))) + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with contextlib.suppress(OSError):
        while True:
            stack.callback(os.close, os.dup(fd))
    with pytest.raises(OSError, match="Too many open files"):
        os.dup(fd)


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """The limit is as it was afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_without_a_descriptor(few_descriptors: None) -> None:
    """A supervisor that has none left is not down."""
    with socket.socket() as client:
        client.setblocking(False)
        async with served("up 100%") as address:
            with contextlib.ExitStack() as stack:
                _take_all(client.fileno(), stack)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, address)
                assert await loop.sock_recv(client, 100) == b"up 100%\n"
