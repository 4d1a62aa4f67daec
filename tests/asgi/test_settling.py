"""Nobody lingers on a connection on which nothing is on its way any more."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import pytest

from stillup.asgi import lingering_close
from stillup.host.socket_queues import is_settled
from tests.asgi.conftest import Certificate
from tests.asgi.event_loops import until
from tests.asgi.lingering_pair import Recorder, connection
from tests.asgi.served_app import Served, serving

pytestmark = pytest.mark.usefixtures("loop_factory")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linger for longer than a test waits: what ends then has ended for another reason."""
    monkeypatch.setattr(lingering_close, "LINGER", 1000.0)


@pytest.mark.parametrize("said", [b"", b"answer"])
async def test_a_client_that_does_not_close_its_side(said: bytes) -> None:
    """A connection ends once all that was written has arrived, though its client keeps its side open."""
    async with connection(owes=False) as (client, server):
        if said:
            server.transport.write(said)
        server.transport.close()
        await server.gone.wait()
        assert server.lost == [None]
        assert await client.rest() == said


async def test_what_has_not_arrived_is_waited_for() -> None:
    """An answer that its client has not taken keeps the connection, and arrives whole."""
    async with connection(owes=False) as (client, server):
        server.transport.write(b"a" * 8_000_000)
        server.transport.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.gone.wait(), 0.3)
        assert len(await client.rest()) == 8_000_000
        await server.gone.wait()


async def test_a_client_in_the_middle_of_a_request_is_lingered_for() -> None:
    """While more is to come the connection stays: a close would reset what the client has yet to read."""
    async with connection() as (client, server):
        server.transport.write(b"answer")
        server.transport.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.gone.wait(), 0.2)
        client.close()
        await server.gone.wait()


async def test_whose_clients_owe_something(http: str) -> None:
    """Half a head, half a body; not a connection that is idle, or said nothing yet."""
    async with serving(http=http) as served:
        for said, owes in (
            (b"", False),
            (b"GET / HT", True),
            (b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", True),
            (b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", False),
        ):
            client = await served.connect()
            await client.send(said)
            await until(lambda: served.site.connections)
            await until(partial(_owes, served, owes))
            client.reset()
            await until(lambda: not served.site.connections)


async def test_tls_waits_for_no_answer_to_its_goodbye(certificate: Certificate) -> None:
    """Over TLS a client that never says goodbye is not waited for, once ours has arrived."""
    loop, protocol = asyncio.get_running_loop(), Recorder(owes=False)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        listener.setblocking(False)
        sock.connect(listener.getsockname())
        accepted, _ = await loop.sock_accept(listener)
        making = loop.create_task(loop.connect_accepted_socket(lambda: protocol, accepted, ssl=certificate.server()))
        with await asyncio.to_thread(_shake_hands, certificate, sock) as tls:
            await making
            protocol.transport.write(b"answer")
            protocol.transport.close()
            await protocol.gone.wait()
            assert tls.recv(100) == b"answer"
        assert protocol.lost == [None]


def _owes(served: Served, expected: bool) -> bool:
    return bool(served.connection.owes() == expected)


def _shake_hands(certificate: Certificate, sock: socket.socket) -> socket.socket:
    sock.setblocking(True)
    return certificate.client().wrap_socket(sock, server_hostname="localhost")


def test_what_the_kernel_says() -> None:
    """Unread input, and output that nobody has read, are something; a socket that is closed has nothing."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            assert is_settled(ours)
            ours.sendall(b"out")
            assert not is_settled(ours)
            theirs.recv(100)
            assert is_settled(ours)
            theirs.sendall(b"in")
            assert not is_settled(ours)
        assert is_settled(ours)
