"""Where connections come from, on real listeners and a real adoption queue."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.errors import PeerError
from supervisor.host import adoption
from supervisor.host.sources import BATCH, Adoptions, Backlog, EndOfSource
from supervisor.wire.adoption import PACKET_LIMIT, encode
from tests.host.queueing import a_queue, established, give, infos, talk, use
from tests.host.scarcity import reading
from tests.host.test_adoption import scarcity

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


def test_two_readers_share() -> None:
    """What one reader has taken another does not get, and none of it is lost."""
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as one, reading(queue, 16) as two:
        for server in servers:
            give(queue, [server])
        use(clients, [*one.take(), *two.take()])
        assert (list(one.take()), list(two.take())) == ([], [])


@pytest.mark.parametrize(
    "packet", [b"garbage", b"\xff", b"{}", encode(infos(1)).replace(b'"version":1', b'"version":2'), b""]
)
def test_a_packet_that_nobody_understands(packet: bytes) -> None:
    """Its connections are closed and counted as lost, the error is told, and the next packet is taken."""
    with a_queue() as queue, established(3) as (clients, servers), reading(queue, 16) as source:
        adoption.send(queue.writer, packet, [server.fileno() for server in servers[:2]])
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
        adoption.send(queue.writer, b"[" * (PACKET_LIMIT + 1), [servers[0].fileno()])
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


def _datagrams() -> socket.socket:
    return socket.socket(type=socket.SOCK_DGRAM)


@pytest.mark.parametrize("make", [lambda: os.fdopen(os.open(os.devnull, os.O_RDONLY)), _datagrams])
def test_no_connection(make: Callable[[], Any]) -> None:
    """What is no stream socket is closed and counted; the connections beside it are served."""
    with a_queue() as queue, established(2) as (clients, servers), reading(queue, 16) as source:
        with make() as other:
            fds = [servers[0].fileno(), other.fileno(), servers[1].fileno()]
            adoption.send(queue.writer, encode(infos(3)), fds)
        for server in servers:
            server.close()
        arrivals = source.take()
        assert [arrival.info for arrival in arrivals] == [infos(3)[0], infos(3)[2]]
        use(clients, arrivals)
        assert source.lost == 1


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
    before = set(os.listdir("/proc/self/fd"))
    with a_queue() as queue:
        source = Adoptions(queue.reader.dup(), 64)
        assert len(set(os.listdir("/proc/self/fd")) - before) >= 64
        source.close()
    assert set(os.listdir("/proc/self/fd")) == before
