"""The accept loop, on real listeners: what it takes, what it leaves to others, and how it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, cast

import pytest

from stillup.asgi import acceptor as module
from stillup.asgi.acceptor import Acceptor
from stillup.errors import PeerError
from stillup.host.sources import BATCH, Arrival, Backlog
from tests.asgi.conftest import Certificate
from tests.asgi.event_loops import until
from tests.host.tcp_ports import wait_for_backlog

pytestmark = pytest.mark.usefixtures("loop_factory")


class Greeter(asyncio.Protocol):
    """Says who accepted, and is on record from then to its end."""

    def __init__(self, name: bytes, made: list[Greeter]) -> None:
        self.name = name
        self.made = made
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.made.append(self)
        self.transport.write(self.name)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Reader(asyncio.Protocol):
    """Keeps what it reads."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Side:
    """One process's part: its own copy of the listener, with an acceptor."""

    def __init__(self, listener: socket.socket, name: bytes = b"hello") -> None:
        self.made: list[Greeter] = []
        self.copy = listener.dup()
        self.acceptor = Acceptor(Backlog("web", self.copy), lambda _: Greeter(name, self.made))

    async def end(self) -> None:
        if self.copy.fileno() >= 0:
            await self.acceptor.stop()
        for greeter in self.made:
            greeter.transport.abort()
        await until(lambda: all(greeter.lost for greeter in self.made))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket as the supervisor makes it: shared, and not blocking."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        sock.setblocking(False)
        yield sock


class Clients:
    """Connections that wait in the listener's backlog."""

    def __init__(self, listener: socket.socket, count: int) -> None:
        self.socks = [socket.create_connection(listener.getsockname(), timeout=10) for _ in range(count)]
        wait_for_backlog(listener, count)

    def __enter__(self) -> list[socket.socket]:
        return self.socks

    def __exit__(self, *_: object) -> None:
        for sock in self.socks:
            sock.close()


async def heard(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    return await asyncio.get_running_loop().sock_recv(sock, 64)


async def test_every_connection_gets_its_protocol(listener: socket.socket) -> None:
    """A backlog of several batches is taken completely, each connection with a protocol of its own."""
    side = Side(listener)
    with Clients(listener, 3 * BATCH + 1) as clients:
        side.acceptor.start()
        assert [await heard(sock) for sock in clients] == [b"hello"] * len(clients)
        assert len(side.made) == len(clients)
    await side.end()


async def test_batches(listener: socket.socket) -> None:
    """Of two acceptors that are woken for the same backlog of two batches each takes one, and none hoards."""
    first, second = Side(listener, b"first"), Side(listener, b"second")
    with Clients(listener, 2 * BATCH) as clients:
        first.acceptor.start()
        second.acceptor.start()
        names = [await heard(sock) for sock in clients]
        assert sorted(names) == [b"first"] * BATCH + [b"second"] * BATCH
    await first.end()
    await second.end()


async def test_turned_away(listener: socket.socket) -> None:
    """A connection for which there is no protocol is whoever's who says so, and the next is served."""
    greeter, kept = Greeter(b"hello", []), list[socket.socket]()

    def protocol(arrival: Arrival) -> Greeter | None:
        if kept:
            return greeter
        kept.append(arrival.socket)
        return None

    acceptor = Acceptor(Backlog("web", listener.dup()), protocol)
    with Clients(listener, 2) as (away, served):
        acceptor.start()
        assert await heard(served) == b"hello"
        kept[0].sendall(b"mine")
        assert await heard(away) == b"mine"
        kept[0].close()
    await acceptor.stop()
    await until(lambda: greeter.lost)


async def test_stop_leaves_the_backlog_to_others(listener: socket.socket) -> None:
    """After stop() a connection waits until another copy's acceptor takes it: the listener itself goes on."""
    first, second = Side(listener, b"first"), Side(listener, b"second")
    first.acceptor.start()
    await first.acceptor.stop()
    assert first.copy.fileno() == -1
    with Clients(listener, 1) as (client,):
        second.acceptor.start()
        assert await heard(client) == b"second"
        assert first.made == []
    await second.end()


async def test_stop_takes_the_backlog(listener: socket.socket) -> None:
    """stop(empty=True) takes every connection that waits, in however many batches, before it closes the last copy."""
    side = Side(listener)
    with Clients(listener, 3 * BATCH + 1) as clients:
        listener.close()
        await side.acceptor.stop(empty=True)
        assert len(side.made) == len(clients)
        assert [await heard(sock) for sock in clients] == [b"hello"] * len(clients)
    await side.end()


async def test_stop_waits_for_accepts_under_way(listener: socket.socket) -> None:
    """Whatever was accepted before stop() has its protocol when stop() returns."""
    side = Side(listener)
    with Clients(listener, BATCH):
        side.acceptor.start()
        await until(lambda: side.acceptor._connecting)
        assert side.made == []
        await side.acceptor.stop()
        assert len(side.made) == BATCH
    await side.end()


@pytest.mark.parametrize("turns", range(4))
async def test_stop_leaves_nothing_unread(listener: socket.socket, turns: int) -> None:
    """What a client had sent before its connection was taken has been read when stop() returns, whenever that began."""
    protocols: list[Reader] = []

    def protocol(_: Arrival) -> Reader:
        protocols.append(Reader())
        return protocols[-1]

    acceptor = Acceptor(Backlog("web", listener.dup()), protocol)
    with Clients(listener, BATCH) as clients:
        for client in clients:
            client.sendall(b"hello")
        acceptor.start()
        await until(lambda: protocols)
        for _ in range(turns):
            await asyncio.sleep(0)
        await acceptor.stop()
        assert [reader.received for reader in protocols] == [b"hello"] * BATCH
        for reader in protocols:
            reader.transport.abort()
    await until(lambda: all(reader.lost for reader in protocols))


async def test_no_protocol_can_be_made(listener: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """A connection whose protocol cannot be made is closed, and logged why; those that came with it are served."""
    made: list[Greeter] = []
    numbers = count()

    def protocol(_: Arrival) -> Greeter:
        if next(numbers) == 1:
            raise LookupError("no such thing")
        return Greeter(b"hello", made)

    acceptor = Acceptor(Backlog("web", listener.dup()), protocol)
    with Clients(listener, 3) as (first, second, third):
        acceptor.start()
        assert [await heard(sock) for sock in (first, second, third)] == [b"hello", b"", b"hello"]
        await until(lambda: not acceptor.connecting)
    assert "a connection cannot be served" in caplog.text
    assert "no such thing" in caplog.text
    await acceptor.stop()
    await until(lambda: all(greeter.lost for greeter in made))


class StandingStill:
    """An event loop whose process is stopped for long between any two looks at the clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.stopped = count(step=2 * module.EMPTYING)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    def time(self) -> float:
        return self.loop.time() + next(self.stopped)


async def test_stop_takes_the_backlog_though_it_stands_still(listener: socket.socket) -> None:
    """Who is stopped for longer than a backlog may take to be emptied closes it on nobody."""
    side = Side(listener)
    side.acceptor._loop = cast("asyncio.AbstractEventLoop", StandingStill(asyncio.get_running_loop()))
    with Clients(listener, 3 * BATCH + 1) as clients:
        listener.close()
        await side.acceptor.stop(empty=True)
        assert len(side.made) == len(clients)
        assert [await heard(sock) for sock in clients] == [b"hello"] * len(clients)
    await side.end()


class Slow:
    """An event loop that needs some turns to make a transport, and says of the first that it was closed before that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    async def connect_accepted_socket(
        self, protocol: Callable[[], asyncio.Protocol], connection: socket.socket, **options: Any
    ) -> None:
        self.asked += 1
        if self.asked == 1:
            failing = self.loop.create_future()
            self.loop.call_later(0.01, failing.set_exception, RuntimeError("closed"))
            await failing
        making = self.loop.create_task(self.loop.connect_accepted_socket(protocol, connection, **options))
        made = self.loop.create_future()
        making.add_done_callback(lambda _: self.loop.call_later(0.01, made.set_result, None))
        await made


async def test_a_start_ends_the_pause(listener: socket.socket) -> None:
    """One that is full looks again later, unless it is started before: no timer is left to start it once more."""
    side = Side(listener)
    side.acceptor._is_ready = lambda: False
    with Clients(listener, 1):
        side.acceptor.start()
        await until(lambda: side.acceptor._pause is not None)
        pause = side.acceptor._pause
        side.acceptor.start()
        assert pause is not None
        assert pause.cancelled()
    await side.end()


async def test_a_slow_loop(listener: socket.socket) -> None:
    """However many turns a transport takes, stop() waits for it; one that cannot be made ends alone, and closed."""
    side = Side(listener)
    side.acceptor._loop = cast("asyncio.AbstractEventLoop", Slow(asyncio.get_running_loop()))
    with Clients(listener, BATCH) as (first, *others):
        side.acceptor.start()
        await until(lambda: side.acceptor.connecting == BATCH)
        await side.acceptor.stop()
        assert len(side.made) == BATCH - 1
        await until(lambda: not side.acceptor.connecting)
        assert await heard(first) == b""
        assert [await heard(sock) for sock in others] == [b"hello"] * len(others)
    await side.end()


async def test_stop_waits_for_a_handshake(listener: socket.socket, certificate: Certificate) -> None:
    """stop() waits until a TLS handshake that has begun is over, and its connection is then a good one."""
    made: list[Greeter] = []
    acceptor = Acceptor(Backlog("web", listener.dup()), lambda _: Greeter(b"hello", made), tls=certificate.server())
    acceptor.start()
    with Clients(listener, 1) as (client,):
        await until(lambda: acceptor._connecting)
        stopping = asyncio.create_task(acceptor.stop())
        await asyncio.sleep(0)  # the turn in which stop() comes to where it waits
        assert not stopping.done()
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(
            sock=client.dup(), ssl=certificate.client(), server_hostname="localhost"
        )
        await stopping
        assert len(made) == 1
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()


async def test_stop_gives_a_handshake_up(
    listener: socket.socket, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that says nothing where a TLS handshake is due holds stop() for HANDSHAKE seconds, and is closed."""
    monkeypatch.setattr(module, "HANDSHAKE", 0.1)
    acceptor = Acceptor(Backlog("web", listener.dup()), lambda _: Greeter(b"hello", []), tls=certificate.server())
    acceptor.start()
    with Clients(listener, 1) as (client,):
        await until(lambda: acceptor._connecting)
        await acceptor.stop()
        assert await heard(client) == b""


async def test_failed_handshake(listener: socket.socket, certificate: Certificate) -> None:
    """A client that speaks no TLS, or leaves during the handshake, ends by itself, and the next one is served."""
    made: list[Greeter] = []
    acceptor = Acceptor(Backlog("web", listener.dup()), lambda _: Greeter(b"hello", made), tls=certificate.server())
    acceptor.start()
    with Clients(listener, 2) as (plain, gone):
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        gone.close()
        while await heard(plain):
            pass
        await until(lambda: not acceptor._connecting)
    reader, writer = await asyncio.open_connection(
        *listener.getsockname(), ssl=certificate.client(), server_hostname="localhost"
    )
    assert await reader.readexactly(5) == b"hello"
    assert len(made) == 1
    writer.close()
    await writer.wait_closed()
    await acceptor.stop()


class Garbage:
    """A source that has nothing but what another worker did wrong."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.taken = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def take(self) -> list[Arrival]:
        self.taken += 1
        raise PeerError("not a packet of the adoption queue")

    def close(self) -> None:
        self._sock.close()


async def test_what_another_worker_does_wrong_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often it does so, there is one line about it for a while; and everybody else has its turn."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.send(b"x")  # never read: there is always more
        source = Garbage(ours)
        acceptor = Acceptor(source, lambda _: None)
        acceptor.start()
        await until(lambda: source.taken > 100)
        await acceptor.stop()
    assert [record.message for record in caplog.records if "lost" in record.message] == [
        "connections lost: not a packet of the adoption queue"
    ]
