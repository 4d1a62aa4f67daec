"""Where connections come from, on real listeners and a real adoption queue."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from stillup.core.crossing import MOST_READ
from stillup.errors import PeerError
from stillup.host import adoption_queue, sealed_memory
from stillup.host.blocking_close import close_socket_in_thread
from stillup.host.sources import BATCH, Adoptions, Backlog, EndOfSource
from stillup.wire import session_format
from stillup.wire.adoption_packet import INLINE_LIMIT, PACKET_LIMIT, ConnectionInfo, encode
from stillup.wire.session_format import OpenWebSocket
from tests.host.conftest import are_open_soon, open_descriptors
from tests.host.few_descriptors import reading
from tests.host.queue_connections import a_queue, established, give, infos, talk, use
from tests.host.slow_sockets import slow_to_close
from tests.host.tcp_ports import wait_for_backlog
from tests.host.test_adoption_queue import scarcity

pytestmark = pytest.mark.usefixtures("no_leak")


# A listener's backlog


def test_a_listener_with_spare_descriptors() -> None:
    """With no descriptor free as many connections are taken as there are spare ones, and another after each end."""
    scarcity("spare")


def test_backlog() -> None:
    """A backlog is taken in batches, oldest first, each connection with its listener's name."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        source = Backlog("web", listener.dup())
        clients = [socket.create_connection(listener.getsockname(), timeout=10) for _ in range(BATCH + 1)]
        wait_for_backlog(listener, BATCH + 1)
        first, second, third = source.take(), source.take(), source.take()
        assert (len(first), len(second), len(third)) == (BATCH, 1, 0)
        for arrival in [*first, *second]:
            assert (arrival.listener, arrival.unix, arrival.info) == ("web", False, None)
            assert not arrival.socket.getblocking()
            assert not arrival.socket.get_inheritable()
        use(clients, [*first, *second])
        for client in clients:
            client.close()
        source.close()
        assert source.fileno() == -1


def test_backlog_of_a_unix_socket() -> None:
    """A connection of a Unix listener is known to be one."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        listener.setblocking(False)
        client.connect(listener.getsockname())
        source = Backlog("local", listener.dup())
        (arrival,) = source.take()
        assert (arrival.listener, arrival.unix) == ("local", True)
        with arrival.socket:
            talk(client, arrival.socket)
        source.close()


def test_a_backlog_never_ends() -> None:
    """A listener on which nobody waits has nothing, however often it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        source = Backlog("web", listener.dup())
        assert [list(source.take()) for _ in range(3)] == [[], [], []]
        source.close()


# The adoption queue


def test_adoptions() -> None:
    """A packet's connections are taken in their order, each with what the worker before said of it."""
    with a_queue() as queue, established(3) as (clients, servers), reading(queue, 16) as source:
        give(queue, servers)
        arrivals = source.take()
        assert [arrival.info for arrival in arrivals] == infos(3)
        for arrival in arrivals:
            assert (arrival.listener, arrival.unix) == ("web", False)
            assert not arrival.socket.getblocking()
            assert not arrival.socket.get_inheritable()
        use(clients, arrivals)
        assert (list(source.take()), source.lost) == ([], 0)


def test_adoption_of_a_unix_connection() -> None:
    """A connection that came by a Unix socket is known by its own family, whatever its listener is called."""
    ours, theirs = socket.socketpair()
    with a_queue() as queue, theirs, reading(queue, 16) as source:
        give(queue, [ours])
        (arrival,) = source.take()
        assert arrival.unix
        with arrival.socket:
            talk(theirs, arrival.socket)


def test_end_of_the_queue() -> None:
    """The end comes when every writer has closed and all was taken; it stays the end."""
    with a_queue() as queue, established(1) as (clients, servers), reading(queue, 16) as source:
        give(queue, servers)
        with queue.writer.dup():
            queue.writer.close()
            use(clients, source.take())
            assert list(source.take()) == []
        for _ in range(2):
            with pytest.raises(EndOfSource):
                source.take()


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_shut_down_is_the_end(how: int) -> None:
    """Any worker may shut the queue down for all: then it has ended, and is not read for ever with nothing in it."""
    with a_queue() as queue, reading(queue, 16) as source:
        (queue.reader if how == socket.SHUT_RD else queue.writer).shutdown(how)
        with pytest.raises(EndOfSource):
            source.take()


def test_an_empty_packet_is_not_the_end() -> None:
    """It reads as the end does, and whoever may write may send one: what is behind it is taken all the same."""
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as source:
        for server in servers:
            queue.writer.send(b"")
            give(queue, [server])
            if server is servers[-1]:
                queue.writer.close()
            with pytest.raises(PeerError):
                source.take()
            use([clients.pop(0)], source.take())
        with pytest.raises(EndOfSource):
            source.take()


def test_two_readers_share() -> None:
    """What one reader has taken another does not get, and none of it is lost."""
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as one, reading(queue, 16) as two:
        for server in servers:
            give(queue, [server])
        use(clients, [*one.take(), *two.take()])
        assert (list(one.take()), list(two.take())) == ([], [])


@pytest.mark.parametrize(
    "packet", [b"garbage", b"\xff", b"{}", encode(infos(1)).replace(b'"version":1', b'"version":3'), b""]
)
def test_a_packet_that_nobody_understands(packet: bytes) -> None:
    """Its connections are closed and counted as lost, the error is told, and the next packet is taken."""
    with a_queue() as queue, established(3) as (clients, servers), reading(queue, 16) as source:
        adoption_queue.send(queue.writer, packet, [server.fileno() for server in servers[:2]])
        give(queue, servers[2:])
        for server in servers[:2]:
            server.close()
        with pytest.raises(PeerError):
            source.take()
        assert source.lost == 2
        assert [client.recv(1) for client in clients[:2]] == [b"", b""]
        use(clients[2:], source.take())


def test_a_packet_that_is_too_long() -> None:
    """A packet of which the kernel had to cut the description is one that nobody understands."""
    with a_queue() as queue, established(1) as (_, servers), reading(queue, 16) as source:
        adoption_queue.send(queue.writer, b"[" * (PACKET_LIMIT + 1), [servers[0].fileno()])
        with pytest.raises(PeerError):
            source.take()
        assert source.lost == 1


@pytest.mark.parametrize(("described", "came"), [(3, 2), (1, 0), (2, 3), (0, 2)])
def test_another_number_than_was_described(described: int, came: int) -> None:
    """As many connections as have both a description and a descriptor are served; the others are closed and counted."""
    with a_queue() as queue, established(3) as (clients, servers), reading(queue, 16) as source:
        if came:
            give(queue, servers[:came], infos(described))
        else:
            queue.writer.send(encode(infos(described)))
        arrivals = source.take()
        both = min(described, came)
        assert [arrival.info for arrival in arrivals] == infos(both)
        use(clients[:both], arrivals)
        assert [client.recv(1) for client in clients[both:came]] == [b""] * (came - both)
        assert source.lost == abs(described - came)


def test_more_than_a_reader_has_room_for() -> None:
    """Of a packet that holds more than packets may, what has room is served, and the rest is counted."""
    with a_queue() as queue, established(8) as (clients, servers), reading(queue, 4) as source:
        give(queue, servers)
        arrivals = source.take()
        assert (len(arrivals), source.lost) == (4, 4)
        use(clients[:4], arrivals)
        assert [client.recv(1) for client in clients[4:]] == [b""] * 4


POISON = (
    ConnectionInfo("web", 1.0, read=b"x" * (MOST_READ + 1)),
    ConnectionInfo("x" * 2000, 1.0),
    ConnectionInfo("\x00" * 200, 1.0),
    ConnectionInfo("web", 1.0, session=b"\xc1"),
    ConnectionInfo("web", 1.0, session=b"x" * (INLINE_LIMIT + 1)),
)
"""Descriptions that no honest worker could pass on."""


@pytest.mark.parametrize("bad", POISON)
def test_one_bad_description_costs_itself_alone(bad: ConnectionInfo) -> None:
    """A connection whose description is not to be used is closed and counted; those beside it are served."""
    with a_queue() as queue, established(3) as (clients, servers), reading(queue, 16) as source:
        give(queue, servers, [infos(1)[0], bad, infos(2)[1]])
        arrivals = source.take()
        assert [arrival.info for arrival in arrivals] == infos(2)
        use([clients[0], clients[2]], arrivals)
        assert clients[1].recv(1) == b""
        assert source.lost == 1


PACKED = session_format.encode(OpenWebSocket(b"state" * 4000, "/", []))


def test_a_session_beside_its_connection() -> None:
    """It comes with the connection whose descriptor is before its memory's; nothing is left open."""
    beside = msgspec.structs.replace(infos(1)[0], beside=len(PACKED))
    inline = msgspec.structs.replace(infos(1)[0], session=session_format.encode(OpenWebSocket(b"small", "/", [])))
    memory = sealed_memory.sealed(PACKED)
    with a_queue() as queue, established(3) as (clients, servers), reading(queue, 16) as source:
        fds = [servers[0].fileno(), servers[1].fileno(), memory, servers[2].fileno()]
        adoption_queue.send(queue.writer, encode([infos(1)[0], beside, inline]), fds)
        for server in servers:
            server.close()
        arrivals = source.take()
        assert [one.session and one.session.state for one in arrivals] == [None, b"state" * 4000, b"small"]
        assert [one.info for one in arrivals] == [infos(1)[0]] * 3
        assert source.lost == 0
        use(clients, arrivals)
    os.close(memory)


@pytest.mark.parametrize("said", [len(PACKED) - 1, len(PACKED) + 1, session_format.SESSION_LIMIT + 1, -1])
def test_memory_that_is_not_what_was_said(said: int) -> None:
    """The connection that it is of is lost, and counted; the one behind it is served."""
    bad = msgspec.structs.replace(infos(1)[0], beside=said)
    memory = sealed_memory.sealed(PACKED)
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as source:
        fds = [servers[0].fileno(), memory, servers[1].fileno()]
        adoption_queue.send(queue.writer, encode([bad, infos(1)[0]]), fds)
        for server in servers:
            server.close()
        arrivals = source.take()
        assert clients[0].recv(1) == b""
        use(clients[1:], arrivals)
        assert source.lost == 1
    os.close(memory)


def test_memory_that_cannot_be_read() -> None:
    """It is sealed, of the right size, and open for writing alone: those beside its connection are served."""
    memory = sealed_memory.sealed(PACKED)
    written = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY)
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as source:
        beside = msgspec.structs.replace(infos(1)[0], beside=len(PACKED))
        fds = [servers[0].fileno(), written, servers[1].fileno()]
        adoption_queue.send(queue.writer, encode([beside, infos(1)[0]]), fds)
        for server in servers:
            server.close()
        use(clients[1:], source.take())
        assert clients[0].recv(1) == b""
        assert source.lost == 1
    os.close(memory)
    os.close(written)


def test_memory_that_does_not_come() -> None:
    """A connection whose session was dropped on the way is lost with it."""
    beside = msgspec.structs.replace(infos(1)[0], beside=len(PACKED))
    with a_queue() as queue, established(1) as (clients, servers), reading(queue, 16) as source:
        adoption_queue.send(queue.writer, encode([beside]), [servers[0].fileno()])
        servers[0].close()
        assert list(source.take()) == []
        assert clients[0].recv(1) == b""
        assert source.lost == 1, "one client saw its connection end"


def test_what_a_clock_says_that_lies() -> None:
    """A time that is none, or is to come, and a number that is beyond all are as far off as they can be, not more."""
    lies = [(1e308, 1e308, 10**30), (-1e308, -1e308, -1)]
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as source:
        give(queue, servers, [ConnectionInfo("web", given, number, idle) for given, idle, number in lies])
        before = time.monotonic()
        arrivals = source.take()
        later, earlier = (arrival.info for arrival in arrivals)
        assert later is not None
        assert earlier is not None
        assert before <= later.given <= time.monotonic()
        assert later.idle_since == later.given
        assert earlier.idle_since is not None
        assert later.given - earlier.idle_since == pytest.approx(1e9)
        assert (later.requests, earlier.requests) == (2**53, 0)
        use(clients, arrivals)


def test_a_packet_that_describes_what_is_not_there() -> None:
    """Whoever counts what was lost believes no more of one packet than may be in it."""
    with a_queue() as queue, reading(queue, 4) as source:
        queue.writer.send(encode(infos(1000)))
        assert list(source.take()) == []
        assert source.lost == 4


def _datagrams() -> socket.socket:
    return socket.socket(type=socket.SOCK_DGRAM)


@pytest.mark.parametrize("make", [lambda: os.fdopen(os.open(os.devnull, os.O_RDONLY)), _datagrams])
def test_no_connection(make: Callable[[], Any]) -> None:
    """What is no stream socket is closed and counted; the connections beside it are served."""
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as source:
        with make() as other:
            fds = [servers[0].fileno(), other.fileno(), servers[1].fileno()]
            adoption_queue.send(queue.writer, encode(infos(3)), fds)
        for server in servers:
            server.close()
        arrivals = source.take()
        assert [arrival.info for arrival in arrivals] == [infos(3)[0], infos(3)[2]]
        use(clients, arrivals)
        assert source.lost == 1


SLOW = {
    "a connection": (encode(infos(1)), 0),
    "a packet that nobody understands": (b"garbage", 0),
    "more than was described": (encode(infos(1)), 1),
    "more than there may be": (encode(infos(16)), 70),
    "memory that is none": (encode([msgspec.structs.replace(infos(1)[0], beside=9)]), 1),
    "a description that can't be": (encode([POISON[1]]), 0),
}
"""What a worker may put there with something that takes long to close, behind so many sockets."""


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("inside", [False, True])
def test_what_takes_long_to_close(name: str, *, inside: bool) -> None:
    """Whoever reads the queue waits for none of it, also when its connection has ended."""
    packet, before = SLOW[name]
    with (
        a_queue() as queue,
        reading(queue, 16) as source,
        socket.socket() as other,
        slow_to_close(inside=inside) as slow,
    ):
        adoption_queue.send(queue.writer, packet, [*[other.fileno()] * before, slow.fileno()])
        os.close(slow.detach())
        began = time.monotonic()
        with suppress(PeerError):
            for arrival in source.take():
                if inside and arrival.unix:  # what lies in its buffer is its own affair
                    close_socket_in_thread(arrival.socket)
                arrival.socket.close()
        assert time.monotonic() - began < 15  # half of what the close takes


def test_with_a_reserve_nothing_is_lost() -> None:
    """Without descriptors nothing is read: what is in the queue stays there until there are some, and is served."""
    scarcity("with_reserve")


def test_a_limit_that_is_lowered_below_the_reserve() -> None:
    """Numbers above a lowered limit make no room: nothing is read, and so nothing lost, until there is some."""
    scarcity("lowered")


def test_without_a_reserve_it_would_be() -> None:
    """What the reserve is for: without it what does not fit is lost, and counted; what fits is served."""
    scarcity("without_reserve")


def test_nothing_is_kept_open() -> None:
    """A closed source holds neither its end nor its reserve."""
    before = open_descriptors()
    with a_queue() as queue:
        source = Adoptions(queue.reader.dup(), 64)
        assert len(open_descriptors().keys() - before.keys()) >= 64
        source.close()
    assert are_open_soon(before)
