"""The adoption queue on the real kernel: what goes in comes out, and what does not fit waits where it is."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stillup.errors import PeerError
from stillup.host import adoption_queue
from stillup.host.adoption_queue import AdoptionQueue, Reserve, capacity, cookie
from stillup.wire.adoption_packet import PACKET_LIMIT, decode, encode
from tests.host.queue_connections import a_queue, established, give, infos, talk

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]


def scarcity(story: str) -> None:
    """Let a story of ``tests.host.few_descriptors`` be told in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "tests.host.few_descriptors", story]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n", "")


def test_round_trip() -> None:
    """A connection whose every copy but the queue's was closed is taken from it alive, with its description."""
    with a_queue() as queue, established(3) as (clients, servers):
        give(queue, servers)
        clients[0].sendall(b"on the way, ")
        received = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16)
        assert decode(received.packet) == infos(3)
        assert not any(os.get_inheritable(fd) for fd in received.fds)
        sides = [socket.socket(fileno=fd) for fd in received.fds]
        assert sides[0].recv(64) == b"on the way, "
        for client, side in zip(clients, sides, strict=True):
            with side:
                talk(client, side)


def test_packets_keep_their_order_and_their_borders() -> None:
    """What was put in first comes out first, a packet at a time."""
    with a_queue() as queue, established(6) as (_, servers):
        for count in (1, 3, 2):
            give(queue, [servers.pop() for _ in range(count)])
        counts = []
        for _ in range(3):
            received = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16)
            counts.append((len(decode(received.packet)), len(received.fds)))
            for fd in received.fds:
                os.close(fd)
        assert counts == [(1, 1), (3, 3), (2, 2)]
        with pytest.raises(BlockingIOError):
            adoption_queue.receive(queue.reader, PACKET_LIMIT, 16)


def test_what_waits_is_counted() -> None:
    """``waiting`` is the number of connections inside after whatever was put in or taken, from each copy."""
    with a_queue() as queue, established(6) as (_, servers):
        seen = [queue.waiting()]
        for count in (1, 3, 2):
            give(queue, [servers.pop() for _ in range(count)])
            seen.append(queue.waiting())
        for _ in range(3):
            for fd in adoption_queue.receive(queue.reader, PACKET_LIMIT, 16).fds:
                os.close(fd)
            seen.append(queue.waiting())
        assert seen == [0, 1, 4, 6, 5, 2, 0]


def test_a_queue_outlives_who_put_something_in() -> None:
    """A copy of the writing end that is closed, as by a worker's death, takes nothing with it."""
    with a_queue() as queue, established(1) as (clients, servers):
        worker = AdoptionQueue.receive([queue.reader.dup().detach(), queue.writer.dup().detach()], queue.cookies)
        give(worker, servers)
        worker.close()
        (fd,) = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16).fds
        with socket.socket(fileno=fd) as server:
            talk(clients[0], server)


def filled(queue: AdoptionQueue, packet: bytes, fds: list[int]) -> int:
    """Fill the queue with such packets; how many it took."""
    for sent in itertools.count():
        try:
            adoption_queue.send(queue.writer, packet, fds)
        except BlockingIOError:
            return sent
    raise AssertionError


@pytest.mark.parametrize("count", [1, 16, 64])
def test_capacity(count: int) -> None:
    """What the capacity says is what really fits, to within a packet."""
    packet = encode(infos(count))
    with a_queue() as queue, established(1) as (_, servers):
        fits = filled(queue, packet, [servers[0].fileno()] * count) * count
        assert queue.waiting() == fits
        assert fits - count <= capacity(packet, count) <= fits + count


def test_a_full_queue_loses_nothing() -> None:
    """What a full queue does not take the giver still has; it fits once something was taken, and all comes out."""
    with a_queue() as queue, established(2) as (clients, servers):
        sent = filled(queue, encode(infos(1)), [servers[0].fileno()])
        with pytest.raises(BlockingIOError):
            adoption_queue.send(queue.writer, encode(infos(1)), [servers[1].fileno()])
        talk(clients[1], servers[1])
        for _ in range(sent):
            (fd,) = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16).fds
            os.close(fd)
        assert queue.waiting() == 0
        give(queue, servers[1:])
        (fd,) = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16).fds
        with socket.socket(fileno=fd) as server:
            talk(clients[1], server)


def test_the_largest_packet_fits() -> None:
    """A packet as long as packets may be is no EMSGSIZE for an empty queue, and comes out whole."""
    with a_queue() as queue, established(1) as (_, servers):
        adoption_queue.send(queue.writer, b"x" * PACKET_LIMIT, [servers[0].fileno()])
        received = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16)
        assert len(received.packet) == PACKET_LIMIT
        os.close(received.fds[0])


def test_too_long_a_packet_is_cut() -> None:
    """Of a packet that is longer than the reader allows there is the beginning; its connections are the caller's."""
    with a_queue() as queue, established(1) as (_, servers):
        adoption_queue.send(queue.writer, b"x" * 100, [servers[0].fileno()])
        received = adoption_queue.receive(queue.reader, 99, 16)
        assert (len(received.packet), len(received.fds)) == (99, 1)
        os.close(received.fds[0])


def test_the_end() -> None:
    """A queue ends when every copy of its writing end is closed and all that was in it was taken; not before."""
    with a_queue() as queue, established(2) as (_, servers):
        other = queue.writer.dup()
        give(queue, servers[:1])
        queue.writer.close()
        os.close(adoption_queue.receive(queue.reader, PACKET_LIMIT, 16).fds[0])
        with pytest.raises(BlockingIOError):
            adoption_queue.receive(queue.reader, PACKET_LIMIT, 16)
        adoption_queue.send(other, encode(infos(1)), [servers[1].fileno()])
        other.close()
        last = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16)
        assert len(last.fds) == 1
        os.close(last.fds[0])
        for _ in range(2):
            assert adoption_queue.receive(queue.reader, PACKET_LIMIT, 16) == adoption_queue.Received(b"", [])


def test_nobody_reads() -> None:
    """Once no copy of the reading end is left, a giver is told; what it wanted to give it still has."""
    with a_queue() as queue, established(1) as (clients, servers):
        queue.reader.close()
        with pytest.raises(BrokenPipeError):
            adoption_queue.send(queue.writer, encode(infos(1)), [servers[0].fileno()])
        talk(clients[0], servers[0])


def test_without_a_descriptor() -> None:
    """Where the receiver has room for two of five connections the kernel cuts the rest; the two work."""
    scarcity("cut")


def test_too_many_in_flight() -> None:
    """An unprivileged user whose descriptors in flight reach its limit gets ETOOMANYREFS; none is lost by it."""
    scarcity("too_many")


def test_counting_without_a_descriptor() -> None:
    """A gauge counts what waits in its queue when no descriptor is free to look with."""
    scarcity("gauge")


def test_reserve() -> None:
    """A reserve holds as many descriptors as it was asked for, close-on-exec, and frees them all."""
    reserve = Reserve(5)
    reserve.fill()
    reserve.fill()
    held = list(reserve._held)
    assert len(set(held)) == 5
    assert not any(os.get_inheritable(fd) for fd in held)
    reserve.free()
    reserve.free()
    assert not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in held)


def test_cookies_tell_sockets_apart() -> None:
    """Every copy of an end has its cookie, and nothing else has."""
    with a_queue() as one, a_queue() as two:
        assert len({*one.cookies, *two.cookies}) == 4
        with one.reader.dup() as copy:
            assert cookie(copy) == one.cookies[0]


def ends(queue: AdoptionQueue) -> list[int]:
    return [queue.reader.dup().detach(), queue.writer.dup().detach()]


def test_receive() -> None:
    """The two ends that were said to come are taken for the queue, in that order."""
    with a_queue() as queue:
        received = AdoptionQueue.receive(ends(queue), queue.cookies)
        assert received.cookies == queue.cookies
        received.close()


@pytest.mark.parametrize("wrong", [0, 1])
def test_receive_no_socket(wrong: int) -> None:
    """Something else than a socket in the place of either end is a PeerError, and nothing is left open."""
    with a_queue() as queue:
        fds = ends(queue)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, fds[wrong], inheritable=False)
        os.close(null)
        with pytest.raises(PeerError, match="what came is no socket"):
            AdoptionQueue.receive(fds, queue.cookies)


@pytest.mark.parametrize("wrong", [0, 1])
def test_receive_another_end(wrong: int) -> None:
    """Another queue's end in the place of either is a PeerError, and nothing is left open."""
    with a_queue() as queue, a_queue() as other:
        cookies = list(queue.cookies)
        cookies[wrong] = other.cookies[wrong]
        with pytest.raises(PeerError, match="not the end of it that it was said to be"):
            AdoptionQueue.receive(ends(queue), cookies)
