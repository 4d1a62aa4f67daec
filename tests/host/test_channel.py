"""A channel over a real SOCK_SEQPACKET connection, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest

from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.channel import Channel, Tap

pytestmark = pytest.mark.usefixtures("no_leak", "loop_factory")


@contextlib.asynccontextmanager
async def channels(*, buffer: int = 0) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends of one connection."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if buffer:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    here, there = Channel(left, limit=4096, most=4), Channel(right, limit=4096, most=4)
    try:
        yield here, there
    finally:
        here.close()
        there.close()


async def fill(channel: Channel) -> int:
    """Send until the peer's buffer is full; how many packets it took."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            channel.send_now(b"%d" % count)
            count += 1
    return count


async def test_order() -> None:
    """Packets arrive in the order in which they were sent, waited for or not, in both directions."""
    async with channels() as (here, there):
        await here.send(b"1")
        here.send_now(b"2")
        await here.send(b"3")
        await there.send(b"back")
        assert [(await there.receive())[0] for _ in range(3)] == [b"1", b"2", b"3"]
        assert await here.receive() == (b"back", [])


@pytest.mark.parametrize("waits", [False, True])
async def test_last_words_of_who_has_not_listened(waits: bool) -> None:
    """What a peer said before it ended is heard, also when it has not read everything that was said to it."""
    async with channels() as (here, there):
        there.send_now(b"never read")
        here.send_now(b"accept")
        here.send_now(b"drain")
        here.close()
        heard = [await there.receive() if waits else there.receive_now() for _ in range(3)]
        assert heard == [(b"accept", []), (b"drain", []), (b"", [])]


async def test_descriptors_ride_along() -> None:
    """Descriptors arrive with their packet and are the receiver's own."""
    async with channels() as (here, there):
        with socket.socket() as sock:
            await here.send(b"a socket", [sock.fileno()])
            packet, fds = await there.receive()
            assert packet == b"a socket"
            assert [os.path.samestat(os.fstat(fd), os.fstat(sock.fileno())) for fd in fds] == [True]
        descriptors.close(fds)


async def test_receive_waits() -> None:
    """A receiver that came first gets the packet when it comes."""
    async with channels() as (here, there):
        waiting = asyncio.create_task(there.receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        await here.send(b"at last")
        assert await waiting == (b"at last", [])


async def test_nobody_listens_between() -> None:
    """When nobody waits the loop does not watch the socket, so that a packet that lies there makes it not spin."""
    loop = asyncio.get_running_loop()
    async with channels(buffer=1) as (here, there):
        receiving = asyncio.create_task(there.receive())
        await asyncio.sleep(0)
        here.send_now(b"first")
        await receiving
        assert not loop.remove_reader(there._sock)
        full = await fill(here)
        sending = asyncio.create_task(here.send(b"more"))
        await asyncio.sleep(0)
        for _ in range(full):
            await there.receive()
        await sending
        assert not loop.remove_writer(here._sock)


async def test_back_pressure() -> None:
    """A sender waits while its peer does not read, goes on when it does, and nothing is lost or changes places."""
    async with channels(buffer=1) as (here, there):
        full = await fill(here)
        waiting = asyncio.create_task(here.send(b"%d" % full))
        await asyncio.sleep(0)
        assert not waiting.done()
        with pytest.raises(BlockingIOError):
            here.send_now(b"pushed in")
        assert [(await there.receive())[0] for _ in range(full)] == [b"%d" % n for n in range(full)]
        await waiting
        assert (await there.receive())[0] == b"%d" % full


async def test_cancelled_waits_leave_nothing() -> None:
    """A receive and a send that were cancelled take and send nothing; the next ones work."""
    async with channels(buffer=1) as (here, there):
        receiving = asyncio.create_task(here.receive())
        full = await fill(here)
        sending = asyncio.create_task(here.send(b"never"))
        await asyncio.sleep(0)
        receiving.cancel()
        sending.cancel()
        await asyncio.wait([receiving, sending])
        assert [(await there.receive())[0] for _ in range(full)] == [b"%d" % n for n in range(full)]
        await here.send(b"next")
        assert (await there.receive())[0] == b"next"
        there.send_now(b"answer")
        assert (await here.receive())[0] == b"answer"


async def test_close_wakes() -> None:
    """close() wakes a receiver and a sender that wait, each with ConnectionError, and is idempotent."""
    async with channels(buffer=1) as (here, _):
        await fill(here)
        tasks = [asyncio.create_task(here.receive()), asyncio.create_task(here.send(b"never"))]
        await asyncio.sleep(0)
        here.close()
        here.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, ConnectionError) for result in results] == [True, True]


async def test_after_close() -> None:
    """On a closed channel everything is a ConnectionError, while its peer still reads what was sent, then the end."""
    async with channels() as (here, there):
        await here.send(b"last words")
        here.close()
        with pytest.raises(ConnectionError):
            await here.send(b"late")
        with pytest.raises(ConnectionError):
            here.send_now(b"late")
        with pytest.raises(ConnectionError):
            await here.receive()
        assert (await there.receive())[0] == b"last words"
        assert await there.receive() == (b"", [])
        with pytest.raises(OSError, match="Broken pipe"):
            await there.send(b"into nothing")


async def test_peer_goes_while_we_wait() -> None:
    """A peer that goes ends a waiting receive with an empty packet and a waiting send with OSError."""
    async with channels(buffer=1) as (here, there):
        await fill(here)
        receiving, sending = asyncio.create_task(here.receive()), asyncio.create_task(here.send(b"never"))
        await asyncio.sleep(0)
        there.close()
        assert await receiving == (b"", [])
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            await sending


async def test_cut_short() -> None:
    """A packet with more descriptors than agreed is a PeerError, nothing of it stays open, and the next one is good."""
    async with channels() as (here, there):
        await here.send(b"six", [0] * 6)
        await here.send(b"next")
        with pytest.raises(PeerError):
            await there.receive()
        assert await there.receive() == (b"next", [])


async def test_unread_descriptors_die_with_the_channel() -> None:
    """Descriptors that nobody received are gone when the channel is closed: their pipe has no reader then."""
    read, write = os.pipe()
    async with channels() as (here, there):
        await here.send(b"a pipe", [read])
        os.close(read)
        assert os.write(write, b"x") == 1
        there.close()
        with pytest.raises(BrokenPipeError):
            os.write(write, b"x")
    os.close(write)


def test_close_without_a_loop(no_leak: None) -> None:
    """A channel can be closed where no loop runs."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with right:
        Channel(left, limit=1, most=1).close()
        assert left.fileno() == -1


async def test_a_tap_sees_what_was_sent_and_received() -> None:
    """Who looks sees each packet once with its direction and descriptors: none that waits, none after it looks away."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tap = Tap()
    seen: list[tuple[str, bytes, int]] = []
    here, there = Channel(left, limit=4096, most=4, tap=tap), Channel(right, limit=4096, most=4)
    try:
        await here.send(b"unseen")
        tap.look = lambda sock, way, packet, fds: seen.append((way, packet, len(fds)))
        await here.send(b"descriptors", [0, 1])
        await there.send(b"back", [2])
        _, fds = await here.receive()
        descriptors.close(fds)
        for _ in range(2):
            descriptors.close((await there.receive())[1])
        there.close()
        assert await here.receive() == (b"", [])
        with pytest.raises(OSError, match="Broken pipe"):
            here.send_now(b"nobody is there")
        assert seen == [("out", b"descriptors", 2), ("in", b"back", 1), ("in", b"", 0)]
        tap.look = None
        assert await here.receive() == (b"", [])
        assert len(seen) == 3
    finally:
        here.close()
        there.close()
