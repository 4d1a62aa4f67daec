"""Sending connections, on a real queue: packets, back-pressure, and what stays when it goes wrong."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stillup.asgi.idle_connections import IdleConnections
from stillup.core.drain import ConnectionClass
from stillup.host import adoption_queue, descriptors
from stillup.host.sources import Arrival
from stillup.wire.adoption_packet import PACKET_ENOUGH, PACKET_LIMIT, ConnectionInfo
from stillup.worker.connection_sender import ConnectionSender
from tests.asgi.event_loops import until
from tests.asgi.served_app import Client, Served, serving
from tests.worker.drainable_worker import a_queue
from tests.worker.full_queue import empty, fill, open_descriptors, packets

pytestmark = pytest.mark.usefixtures("loop_factory")

ROOT = Path(__file__).parents[2]


async def ask(client: Client) -> None:
    await client.ask("/")
    answer = await client.answer()
    assert (answer.body, answer.says_close) == (b"ok", False)


def read(connection: Any) -> int:
    """How much of a head was read of a connection."""
    found = connection.standing()
    assert found is not None
    return len(found.head or b"")


def offer_all(sender: ConnectionSender, served: Served) -> None:
    for connection in list(served.site.connections):
        sender.offer(connection)


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (16, [5])])
async def test_packets(http: str, limit: int, sizes: list[int]) -> None:
    """Connections go as many a packet as may be; the last packet has what is left."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            for _ in range(5):
                await served.connect()
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), limit, stayed.append)
            offer_all(sender, served)
            await until(lambda: not served.site.connections)
            assert (sender.given, stayed, queue.waiting()) == (5, [], 5)
            sender.stop()
            assert [len(packet) for packet in packets(queue)] == sizes


async def test_long_heads_go_alone(http: str) -> None:
    """A packet that has enough bytes gets no further connection, however few it has."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * PACKET_ENOUGH
    with a_queue() as queue:
        async with serving(http=http, h11_max_incomplete_event_size=1 << 17) as served:
            for _ in range(3):
                client = await served.connect()
                await client.send(head)
            await until(lambda: served.kinds == [ConnectionClass.HALF_READ] * 3)
            await until(lambda: [read(connection) for connection in served.site.connections] == [len(head)] * 3)
            sender = ConnectionSender(queue.writer.dup(), 16, lambda _: None)
            offer_all(sender, served)
            await until(lambda: not served.site.connections)
            sender.stop()
            seen = packets(queue)
            assert [len(packet) for packet in seen] == [1, 1, 1]
            assert all(packet[0].read == head for packet in seen)


async def test_one_that_no_packet_takes(http: str) -> None:
    """It stays, and is told of; those that were to go with it go."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            for _ in range(5):
                await served.connect()
            bad: Any = list(served.site.connections)[2]
            bad.arrival.listener = "x" * PACKET_LIMIT
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), 16, stayed.append)
            offer_all(sender, served)
            await until(lambda: served.site.connections == {bad})
            await until(lambda: stayed == [bad])
            assert (sender.given, queue.waiting(), sender.works) == (4, 4, True)
            sender.stop()
            packets(queue)


async def test_an_idle_one_that_no_packet_takes(http: str) -> None:
    """It was poisoned by another worker, and ends alone."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            idle = IdleConnections(lambda _: None, 60.0, lambda: None)
            pairs = [socket.socketpair() for _ in range(5)]
            for number, (ours, _) in enumerate(pairs):
                ours.setblocking(False)
                name = "x" * PACKET_LIMIT if number == 2 else "web"
                info = ConnectionInfo(name, time.monotonic(), 1, time.monotonic())
                assert idle.keep(Arrival(ours, name, unix=True, info=info))
            sender = ConnectionSender(queue.writer.dup(), 16, lambda _: None)
            sender.offer_idle(idle)
            await until(lambda: not idle)
            assert (sender.given, queue.waiting(), sender.works) == (4, 4, True)
            assert pairs[2][1].recv(1) == b""
            sender.stop()
            packets(queue)
            for _, theirs in pairs:
                theirs.close()
            await idle.stop()
            assert not served.site.connections


async def test_a_full_queue(http: str) -> None:
    """While there is no room nothing is lost, closed or left unserved; with the first room all go."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            clients = [await served.connect() for _ in range(3)]
            filling = fill(queue)
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), 16, stayed.append)
            offer_all(sender, served)
            for client in clients:
                await ask(client)
            assert (len(served.site.connections), sender.given, stayed) == (3, 0, [])
            assert sender.works
            empty(queue, filling)
            await until(lambda: not served.site.connections)
            assert (sender.given, stayed, queue.waiting()) == (3, [], 3)
            sender.stop()


async def test_parked(http: str) -> None:
    """Where nobody reads, the queue is filled to the brim; what does not fit is served, and who gave it is told."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            fill(queue)
            queue.reader.recv(4096)  # room for a few; it is called writable once a quarter is left
            stayed: list[Any] = []
            full: list[bool] = []
            sender = ConnectionSender(queue.writer.dup(), 1, stayed.append)
            clients = []
            known: set[Any] = set()
            for _ in range(12):
                clients.append(await served.connect())
                (connection,) = served.site.connections - known
                known.add(connection)
                sender.offer(connection)
            await ask(clients[0])
            assert sender.given == 0
            sender.park(lambda: full.append(True))
            await until(lambda: full)
            assert 0 < sender.given < len(clients)
            assert (len(stayed), sender.works) == (len(clients) - sender.given, False)
            await until(lambda: served.site.connections == set(stayed))
            for client in clients[sender.given :]:
                await ask(client)
            sender.stop()


async def test_busy_when_there_is_room(http: str) -> None:
    """Of those that waited, one that has a request under way when there is room stays, and is named; the others go."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            busy = await served.connect()
            connection = served.connection
            await served.connect()
            filling = fill(queue)
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), 16, stayed.append)
            offer_all(sender, served)
            await busy.ask("/held")
            await served.waits()
            empty(queue, filling)
            await until(lambda: sender.given == 1)
            await until(lambda: len(served.site.connections) == 1)
            assert (stayed, served.connection) == ([connection], connection)
            served.app.go.set()
            assert (await busy.answer()).body == b"at last"
            sender.stop()


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_gone_when_there_is_room(http: str, way: str) -> None:
    """A client that has left while it waited is not given to anybody; the others are."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            gone = await served.connect()
            await served.connect()
            filling = fill(queue)
            sender = ConnectionSender(queue.writer.dup(), 16, lambda _: None)
            offer_all(sender, served)
            getattr(gone, way)()
            await until(lambda: len(served.site.connections) == 1)
            empty(queue, filling)
            await until(lambda: not served.site.connections)
            assert (sender.given, queue.waiting()) == (1, 1)
            sender.stop()


async def test_stop(http: str) -> None:
    """After stop() what waited stays, is named and served; the end is closed, and a second stop() changes nothing."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            clients = [await served.connect() for _ in range(3)]
            filling = fill(queue)
            stayed: list[Any] = []
            writer = queue.writer.dup()
            sender = ConnectionSender(writer, 16, stayed.append)
            offer_all(sender, served)
            await ask(clients[0])
            sender.stop()
            sender.stop()
            assert set(stayed) == served.site.connections
            assert (len(stayed), sender.works, writer.fileno()) == (3, False, -1)
            empty(queue, filling)
            for client in clients:
                await ask(client)
            assert queue.waiting() == 0


async def test_stop_before_the_turn(http: str) -> None:
    """A connection that was offered in the turn of the loop in which the sender is stopped stays."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            client = await served.connect()
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), 16, stayed.append)
            offer_all(sender, served)
            sender.stop()
            assert stayed == [served.connection]
            await ask(client)
            assert queue.waiting() == 0


async def test_nobody_reads(http: str, caplog: pytest.LogCaptureFixture) -> None:
    """Once nobody can read the queue, the sender says so, gives up, and everything stays and is served."""
    caplog.set_level(logging.ERROR, "uvicorn.error")
    with a_queue() as queue:
        async with serving(http=http) as served:
            clients = [await served.connect() for _ in range(3)]
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), 1, stayed.append)
            queue.reader.close()
            offer_all(sender, served)
            await until(lambda: len(stayed) == 3)
            assert (sender.works, sender.given) == (False, 0)
            assert "connections stay here: adoption queue: [Errno 32] Broken pipe" in caplog.text
            for client in clients:
                await ask(client)
            sender.stop()


async def test_nobody_reads_any_more(http: str, caplog: pytest.LogCaptureFixture) -> None:
    """The same where the last reader goes while the queue is full and connections wait for it."""
    caplog.set_level(logging.ERROR, "uvicorn.error")
    with a_queue() as queue:
        async with serving(http=http) as served:
            client = await served.connect()
            fill(queue)
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), 1, stayed.append)
            offer_all(sender, served)
            await ask(client)
            assert stayed == []
            queue.reader.close()
            await until(lambda: stayed)
            assert not sender.works
            await ask(client)
            sender.stop()


async def test_descriptors(http: str) -> None:
    """What was given is closed here; nothing else is."""
    with a_queue() as queue:
        async with serving(http=http) as served:
            await served.connect()
            await served.connect()
            sender = ConnectionSender(queue.writer.dup(), 16, lambda _: None)
            before = open_descriptors()
            sender.offer(next(iter(served.site.connections)))
            await until(lambda: len(served.site.connections) == 1)
            await until(lambda: open_descriptors() == before - 1)
            received = adoption_queue.receive(queue.reader, 1 << 17, 64)
            assert (len(received.fds), open_descriptors()) == (1, before)
            descriptors.close(received.fds)
            sender.stop()


@pytest.mark.parametrize("loop_factory", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http_", ["httptools", "h11"])
def test_too_many_in_flight(loop_factory: str, http_: str) -> None:
    """Where the kernel has too many of this user's in flight, they stay, are served, and go a little later."""
    command = [sys.executable, "-W", "error", "-m", "tests.worker.in_flight_limit", loop_factory, http_]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n", "")


async def test_a_connection_that_has_become_a_websocket(http: str) -> None:
    """One that was offered and has shaken hands for a WebSocket before it was given stays, whatever its parser says."""
    with a_queue() as queue:
        filling = fill(queue)
        async with serving(http=http) as served:
            client = await served.connect()
            stayed: list[Any] = []
            sender = ConnectionSender(queue.writer.dup(), 16, stayed.append)
            connection = served.connection
            sender.offer(connection)
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            await client.ask("/", "Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13")
            assert (await client.read_to(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            empty(queue, filling)
            await until(lambda: stayed == [connection])
            assert sender.given == 0
            sender.stop()
