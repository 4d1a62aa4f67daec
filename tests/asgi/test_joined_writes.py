"""An answer's head and body leave in one piece, on real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stillup.asgi import lingering_close
from tests.asgi.lingering_pair import Recorder, connection

pytestmark = pytest.mark.usefixtures("loop_factory")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linger for longer than a test waits: what ends then has ended for another reason."""
    monkeypatch.setattr(lingering_close, "LINGER", 1000.0)


class Writes:
    """What a transport is told to write, piece by piece."""

    def __init__(self, protocol: Recorder) -> None:
        self.pieces: list[bytes] = []
        self._transport = protocol.transport
        self._write, self._transport._straight = self._transport._straight, self
        self._transport.write = self

    def __call__(self, data: bytes) -> None:
        self.pieces.append(bytes(data))
        self._write(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_joined(kind: Any) -> None:
    """What is kept leaves in one piece with what is written next, and nothing after that is kept."""
    async with connection() as (client, server):
        writes = Writes(server)
        for _ in range(2):
            server.transport.join()
            server.transport.write(b"head")
            assert server.transport.get_write_buffer_size() >= 4
            server.transport.write(kind(b"body"))
            server.transport.write(b"more")
        assert writes.pieces == [b"headbody", b"more"] * 2
        assert await client.read_to(b"moreheadbodymore") == b"headbodymoreheadbodymore"


async def test_nothing_to_join() -> None:
    """Without anything more, what is kept leaves in the loop's next turn; an empty piece makes it leave at once."""
    async with connection() as (client, server):
        writes = Writes(server)
        server.transport.join()
        server.transport.write(b"head")
        assert writes.pieces == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert writes.pieces == [b"head"]
        server.transport.join()
        server.transport.write(b"head")
        server.transport.write(b"")
        assert writes.pieces == [b"head"] * 2
        assert await client.read_to(b"headhead") == b"headhead"


async def test_too_large_to_join() -> None:
    """A large piece is not copied: it leaves after what was kept."""
    async with connection() as (client, server):
        writes, body = Writes(server), b"b" * (lingering_close.LARGE + 1)
        server.transport.join()
        server.transport.write(b"head")
        server.transport.write(body)
        assert writes.pieces == [b"head", body]
        assert await client.read_to(body) == b"head" + body


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_kept_and_ended(end: str) -> None:
    """What is kept arrives before the end; what is joined after a close is no more written than anything else."""
    async with connection() as (client, server):
        server.transport.join()
        server.transport.write(b"head")
        getattr(server.transport, end)()
        if end == "close":
            server.transport.join()
            server.transport.write(b"dropped")
            server.transport.write(b"dropped")
        assert await client.rest() == b"head"


async def test_kept_and_no_piece_of_bytes() -> None:
    """What cannot be written is the writer's mistake; what was kept leaves all the same."""
    async with connection() as (client, server):
        server.transport.join()
        server.transport.write(b"head")
        with pytest.raises(TypeError):
            server.transport.write("body")
        assert await client.read_to(b"head") == b"head"


async def test_kept_and_aborted() -> None:
    """Nothing is written to a connection that is gone."""
    async with connection() as (_, server):
        writes = Writes(server)
        server.transport.join()
        server.transport.write(b"head")
        server.transport.abort()
        await server.gone.wait()
        await asyncio.sleep(0)
        assert writes.pieces == []
