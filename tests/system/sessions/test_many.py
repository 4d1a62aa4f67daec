"""Many WebSockets at once over reloads: who chats is answered in time, who is silent is there afterwards."""

from __future__ import annotations

import asyncio
import resource
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.system.gated_service import reload
from tests.system.harness import DEADLINE, FULL
from tests.system.sessions.conftest import SessionService, Start
from tests.system.sessions.websocket_peer import PING, PONG, TEXT, Reply, frame

CHATTING, RELOADS = (1_000, 10) if FULL else (60, 2)
THINK = 1.0
"""Seconds between an answer and the next message of a client."""
LONGEST = 2.0
"""Seconds that a client who chats waits for an answer, at most, whatever is reloaded meanwhile. Alone on two cores a
thousand wait 0.1; beside seven other tests five times as long."""
SILENT = 10_000 if FULL else 300
CROSSED = 20.0
"""Seconds from the cut-over until all that are silent have crossed. Alone on two cores 10,000 take 1.6; beside seven
other tests five times as long."""
AT_ONCE = 200
"""Handshakes that are under way together."""
HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass
class Chatter:
    """One client; what it says it numbers, and so does the app, over all generations."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    said: int = 0
    longest: float = 0.0
    """Seconds from a message to its answer."""
    answered_by: int = 0
    """The generation of the last answer."""

    async def ask(self) -> None:
        """Say something, and take the answer, which has to be the one to it."""
        self.said += 1
        began = time.monotonic()
        self.writer.write(frame(TEXT, b"hello"))
        reply = Reply.parse((await self._text()).decode())
        self.longest = max(self.longest, time.monotonic() - began)
        assert (reply.count, reply.text) == (self.said, "hello"), reply
        self.answered_by = reply.generation

    async def chat(self, first: float, enough: asyncio.Event) -> None:
        """Ask again and again; the first time after ``first`` seconds."""
        await asyncio.sleep(first)
        while not enough.is_set():
            await self.ask()
            await asyncio.sleep(THINK)

    async def _text(self) -> bytes:
        while True:
            first, size = await self.reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            data = await self.reader.readexactly(size)
            if first & 15 != PING:
                assert first & 15 == TEXT, (first, data)
                return data
            self.writer.write(frame(PONG, data))


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """One for each client, and some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = SILENT + 1_000
    if hard < needed:
        pytest.skip(f"the limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def connected(service: SessionService, count: int) -> AsyncIterator[list[Chatter]]:
    """So many clients that have shaken hands."""
    host, _, port = service.address().rpartition(":")
    places = asyncio.Semaphore(AT_ONCE)
    clients: list[Chatter] = []

    async def connect() -> None:
        async with places:
            reader, writer = await asyncio.open_connection(host, int(port))
            clients.append(Chatter(reader, writer))
            writer.write(HANDSHAKE)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(connect())
        yield clients
    finally:
        for client in clients:
            client.writer.transport.abort()


def test_all_who_chat_are_answered_in_time(start: Start) -> None:
    """None is ended, each answer is the one to its question, and none comes late."""
    service = start(workers=2)

    async def act() -> None:
        enough = asyncio.Event()
        async with connected(service, CHATTING) as clients, asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(client.chat(THINK * number / len(clients), enough))
            for generation in range(2, RELOADS + 2):
                assert await asyncio.to_thread(reload, service) == generation
                async with asyncio.timeout(DEADLINE):
                    while any(client.answered_by < generation for client in clients):  # noqa: ASYNC110 - of a client
                        await asyncio.sleep(0.1)
            enough.set()
        longest = max(client.longest for client in clients)
        said = sum(client.said for client in clients)
        print(f"{len(clients)} clients, {RELOADS} reloads, {said} messages, longest pause {1000 * longest:.0f} ms")
        assert longest < LONGEST

    asyncio.run(act())
    assert service.status().crossing.lost == 0


def test_all_who_are_silent_cross(start: Start) -> None:
    """Soon after the cut-over, and each is answered by the new generation as the one that it is."""
    service = start(workers=2)

    async def act() -> None:
        async with connected(service, SILENT) as clients:
            assert await asyncio.to_thread(reload, service) == 2
            await asyncio.to_thread(service.counted, "session", SILENT)
            took = service.told_at("generation.gone") - service.told_at("rollout.cut-over")
            print(f"{SILENT} silent clients crossed within {took:.2f} s of the cut-over")
            assert took < CROSSED
            for beginning in range(0, SILENT, AT_ONCE):
                await asyncio.gather(*(client.ask() for client in clients[beginning : beginning + AT_ONCE]))
            assert {client.answered_by for client in clients} == {2}

    asyncio.run(act())
