"""Closing a connection so that what was written arrives, on real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest

from stillup.asgi import lingering_close
from stillup.asgi.lingering_close import LingeringCloseTransport
from tests.asgi.conftest import Certificate
from tests.asgi.event_loops import until
from tests.asgi.lingering_pair import Recorder, connection
from tests.asgi.served_app import Client

pytestmark = pytest.mark.usefixtures("loop_factory")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linger for longer than a test waits: what ends then has ended for another reason."""
    monkeypatch.setattr(lingering_close, "LINGER", 1000.0)


async def received(client: Client) -> tuple[int, str]:
    """How many bytes come, and how they end."""
    loop, count = asyncio.get_running_loop(), 0
    while True:
        try:
            data = await loop.sock_recv(client.sock, 1 << 20)
        except ConnectionResetError:
            return count, "reset"
        if not data:
            return count, "end"
        count += len(data)


@pytest.mark.parametrize("lingers", [True, False])
async def test_answer_arrives_while_the_body_is_still_sent(*, lingers: bool) -> None:
    """An answer before close() arrives whole though input is unread; the transport's own close() loses it by a reset.

    The answer is in the kernel's buffer at close(), where a client that takes little at once has left it.
    """
    async with connection(lingers=lingers, window=4096) as (client, server):
        server.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        server.transport.pause_reading()
        await client.send(b"x" * 4096)
        server.transport.write(b"a" * 300_000)
        await until(lambda: not server.transport.get_write_buffer_size())
        server.transport.close()
        if not lingers:
            await server.gone.wait()
        count, end = await received(client)
        assert end == ("end" if lingers else "reset")
        assert (count == 300_000) == lingers


async def test_answer_larger_than_the_kernel_takes() -> None:
    """An answer that is still in the transport's buffer at close() arrives whole before the connection ends."""
    async with connection() as (client, server):
        server.transport.write(b"a" * 8_000_000)
        assert server.transport.get_write_buffer_size() > 0
        server.transport.close()
        assert await received(client) == (8_000_000, "end")


async def test_what_comes_later_is_dropped() -> None:
    """What the client sends after close() is read, as its whole going out shows, and never reaches the protocol."""
    async with connection() as (client, server):
        await client.send(b"before")
        await until(lambda: server.received == b"before")
        server.transport.close()
        await client.send(b"after" * 1_000_000)
        assert await client.rest() == b""
        client.close()
        await server.gone.wait()
        assert (server.received, server.lost) == (b"before", [None])


async def test_what_is_written_later_is_dropped() -> None:
    """Bytes that a protocol writes after its close() are dropped silently, by write and by writelines."""
    async with connection() as (client, server):
        server.transport.write(b"before")
        server.transport.close()
        server.transport.write(b"after")
        server.transport.writelines([b"after"])
        assert await client.rest() == b"before"


async def test_close_is_seen_at_once() -> None:
    """After close() the transport is closing and the protocol not yet told; a second close() changes nothing."""
    async with connection() as (client, server):
        assert not server.transport.is_closing()
        server.transport.close()
        server.transport.close()
        assert server.transport.is_closing()
        assert await client.rest() == b""
        assert server.lost == []
        client.close()
        await server.gone.wait()
        assert server.lost == [None]


async def test_close_resumes_reading() -> None:
    """A connection whose reading was paused at close() still sees its client's end."""
    async with connection() as (client, server):
        server.transport.pause_reading()
        server.transport.close()
        client.close()
        await server.gone.wait()
        assert server.lost == [None]


async def test_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not close its side is broken off after LINGER, and the protocol is told once."""
    monkeypatch.setattr(lingering_close, "LINGER", 0.1)
    async with connection() as (_, server):
        began = asyncio.get_running_loop().time()
        server.transport.close()
        await server.gone.wait()
        assert 0.09 < asyncio.get_running_loop().time() - began < 5
        assert server.lost == [None]


async def test_deadline_begins_when_all_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes its answer slowly, for longer than LINGER, gets the whole of it."""
    monkeypatch.setattr(lingering_close, "LINGER", 0.1)
    async with connection() as (client, server):
        server.transport.write(b"a" * 8_000_000)
        server.transport.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.gone.wait(), 0.3)
        assert await received(client) == (8_000_000, "end")
        await server.gone.wait()


async def test_close_after_a_reset() -> None:
    """close() of a connection that its client has just reset, of which nobody has heard yet, raises nothing."""
    async with connection() as (client, server):
        client.reset()
        server.transport.close()
        await server.gone.wait()
        assert len(server.lost) == 1


async def test_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that goes on sending is broken off when more than CAP bytes were dropped, and the protocol told once."""
    monkeypatch.setattr(lingering_close, "CAP", 100_000)
    async with connection() as (client, server):
        server.transport.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await client.send(b"x" * 100_000_000)
        await server.gone.wait()
        assert server.lost == [None]


async def test_client_is_gone_by_reset() -> None:
    """A client that resets the connection while it lingers ends it; the protocol is told once, with the error."""
    async with connection() as (client, server):
        server.transport.close()
        client.reset()
        await server.gone.wait()
        assert [type(error) for error in server.lost] == [ConnectionResetError]


async def test_flow_control_goes_on() -> None:
    """A protocol that waits until it may write again is told so while its connection lingers."""
    async with connection() as (client, server):
        server.transport.write(b"a" * 8_000_000)
        assert server.paused == [True]
        server.transport.close()
        await received(client)
        assert server.paused == [True, False]


async def test_abort_does_not_linger() -> None:
    """abort() ends the connection at once, whatever its client does, also while it lingers."""
    async with connection() as (_, server):
        server.transport.abort()
        assert server.transport.is_closing()
        await server.gone.wait()
    async with connection() as (_, server):
        server.transport.close()
        server.transport.abort()
        await server.gone.wait()
        assert server.lost == [None]


async def test_client_closes_first() -> None:
    """A connection that its client ends is told to the protocol once, and is closing without a close()."""
    async with connection() as (client, server):
        client.close()
        await server.gone.wait()
        assert server.transport.is_closing()
        server.transport.close()
        assert server.lost == [None]


async def test_nothing_is_kept() -> None:
    """After its end nothing holds a connection's protocol, such as a timer that still runs."""
    async with connection() as (client, server):
        server.transport.close()
        client.close()
        await server.gone.wait()
    ended = weakref.ref(server)
    del server
    await asyncio.sleep(0)
    gc.collect()
    assert ended() is None


async def test_bytes_do_not_pass_through() -> None:
    """Bytes come from the loop's transport straight to the protocol; only the transport that it sees is ours."""
    async with connection() as (_, server):
        assert isinstance(server.transport, LingeringCloseTransport)
        assert server.transport._inner.get_protocol() is server
        assert server.transport.write == server.transport._inner.write


async def test_another_protocol_takes_over() -> None:
    """After set_protocol bytes and the end of the connection go to the new protocol, also through a close()."""
    async with connection() as (client, server):
        second = Recorder()
        server.transport.set_protocol(second)
        assert server.transport.get_protocol() is second
        await client.send(b"for the second")
        await until(lambda: second.received)
        server.transport.close()
        client.close()
        await second.gone.wait()
        assert (second.received, second.lost, server.received, server.lost) == (b"for the second", [None], b"", [])
        server.connection_lost(None)


async def test_tls_closes_in_its_own_way(certificate: Certificate) -> None:
    """Over TLS close() is the transport's own: the answer comes, then close_notify, and no reader takes over."""
    loop, protocol = asyncio.get_running_loop(), Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        dial = loop.create_task(
            asyncio.open_connection(*listener.getsockname(), ssl=certificate.client(), server_hostname="localhost")
        )
        accepted, _ = await loop.sock_accept(listener)
        await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=certificate.server())
        reader, writer = await dial
        assert not protocol.transport.can_write_eof()
        protocol.transport.write(b"answer")
        protocol.transport.close()
        assert protocol.transport.is_closing()
        assert protocol.transport._inner.get_protocol() is protocol
        assert await reader.read() == b"answer"
        writer.close()
        await writer.wait_closed()
        await protocol.gone.wait()
        assert protocol.lost == [None]
