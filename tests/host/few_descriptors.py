"""``python -m tests.host.few_descriptors STORY``: an adoption queue and few descriptors, in a process."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from stillup.daemon.state.custody import Custody
from stillup.errors import Refused
from stillup.host import adoption_queue
from stillup.host.adoption_queue import AdoptionQueue, Gauge, Reserve, capacity
from stillup.host.sources import Adoptions, SpareBacklog
from stillup.wire.address import Bind, parse_binds
from stillup.wire.adoption_packet import PACKET_LIMIT, decode, encode
from tests.host.queue_connections import a_queue, established, give, infos, talk, use
from tests.host.tcp_ports import wait_for_backlog

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
NOBODY = 20_000 + os.getpid() % 40_000
"""A user of our own: those in flight are counted by user, and a process before us may have left some for a moment."""


def leave(free: int) -> None:
    """Let there be exactly so many descriptors more: the kernel gives out the lowest numbers below the limit."""
    used = {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}
    limit = 0
    while limit in used or free:
        free -= limit not in used
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, HARD))


def plenty() -> None:
    """Let there be as many as before."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(HARD, 4096), HARD))


@contextmanager
def crowd(queue: AdoptionQueue, count: int) -> Iterator[list[socket.socket]]:
    """Clients whose connections are in the queue, one packet for all."""
    with established(count) as (clients, servers):
        give(queue, servers)
        yield clients


def cut() -> None:
    """Receive five connections where there is room for two: the first two came, and work; the kernel ended three."""
    with a_queue() as queue, crowd(queue, 5) as clients:
        leave(2)
        received = adoption_queue.receive(queue.reader, PACKET_LIMIT, 16)
        plenty()
        assert (len(decode(received.packet)), len(received.fds)) == (5, 2)
        for client, fd in zip(clients, received.fds, strict=False):
            with socket.socket(fileno=fd) as server:
                talk(client, server)
        assert [client.recv(1) for client in clients[2:]] == [b""] * 3


def without_reserve() -> None:
    """The same with a source that keeps no reserve: it serves what came through, and counts what did not."""
    with a_queue() as queue, crowd(queue, 5) as clients, reading(queue, 16) as source:
        source._reserve.free()
        source._reserve = NoReserve(0)
        leave(2)
        arrivals = source.take()
        plenty()
        assert (len(arrivals), source.lost) == (2, 3)
        use(clients[:2], arrivals)
        assert [client.recv(1) for client in clients[2:]] == [b""] * 3


class NoReserve(Reserve):
    """Holds nothing."""

    def fill(self) -> None:
        pass


@contextmanager
def reading(queue: AdoptionQueue, most: int) -> Iterator[Adoptions]:
    """A source with a copy of its own of the queue's reading end."""
    source = Adoptions(queue.reader.dup(), most)
    try:
        yield source
    finally:
        source.close()


def with_reserve() -> None:
    """A source with its reserve loses nothing: it takes what fits, or leaves it in the queue and says so."""
    with a_queue() as queue, reading(queue, 4) as source, ExitStack() as stack:
        crowds = [stack.enter_context(crowd(queue, 4)) for _ in range(3)]
        leave(0)
        arrivals = source.take()
        assert len(arrivals) == 4
        for _ in range(3):
            try:
                source.take()
            except OSError as error:
                assert error.errno == errno.EMFILE  # noqa: PT017 - no pytest in this process
            else:
                raise AssertionError("a packet was read without a reserve")
        plenty()
        assert queue.waiting() == 8
        use(crowds[0], arrivals)
        leave(4)
        for clients in crowds[1:]:
            use(clients, source.take())
        plenty()
        assert (queue.waiting(), source.lost) == (0, 0)


def lowered() -> None:
    """Have the limit lowered below what the reserve holds: nothing is read until there is room below it."""
    with a_queue() as queue, reading(queue, 4) as source, crowd(queue, 4) as clients:
        limit = min(source._reserve._held)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, HARD))
        assert error_of(source.take) == errno.EMFILE
        assert queue_holds(queue) == 4
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 3, HARD))
        assert error_of(source.take) == errno.EMFILE
        plenty()
        use(clients, source.take())
        assert source.lost == 0


def queue_holds(queue: AdoptionQueue) -> int:
    """What waits in it, whatever our limit is."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    plenty()
    waiting = queue.waiting()
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    return waiting


def too_many() -> None:
    """As somebody without privileges, fill the queue to what RLIMIT_NOFILE allows in flight: nothing is lost by it."""
    with a_queue() as queue, established(20) as (clients, servers), reading(queue, 20) as source:
        assert queue.waiting() == 0  # reads what is to be imported, which nobody else may
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, HARD))
        assert capacity(encode(infos(16)), 16) == 128
        fds = [server.fileno() for server in servers]
        sent = 0
        while (error := _send(queue, fds)) == 0:
            sent += 1
        assert error == errno.ETOOMANYREFS
        assert select.select([], [queue.writer], [], 0)[1], "no event would tell the end of it"
        assert 128 < sent * len(fds) <= 128 + len(fds)
        assert queue.waiting() == sent * len(fds)
        for _ in range(sent):
            use(clients, source.take())
        assert _send(queue, fds) == 0
        use(clients, source.take())


def gauge() -> None:
    """Count what waits in a queue when there is no descriptor left, before something came and after."""
    with a_queue() as queue, established(3) as (_, servers):
        counting = Gauge(queue)
        leave(0)
        assert counting.read() == 0
        give(queue, servers)
        leave(0)
        assert counting.read() == 3
        plenty()
        counting.close()


def spare() -> None:
    """Be reached when no descriptor is left: as often as there are spare ones, and again after a connection's end."""
    with ExitStack() as stack:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        where = listener.getsockname()
        source = SpareBacklog("control", listener, 2)
        for _ in range(4):
            stack.enter_context(socket.create_connection(where, timeout=10))
        wait_for_backlog(listener, 4)
        leave(0)
        taken = [*source.take(), *source.take()]
        assert len(taken) == 2
        for _ in range(2):
            assert error_of(source.take) == errno.EMFILE
        taken.pop().socket.close()
        taken += source.take()
        assert len(taken) == 2
        assert error_of(source.take) == errno.EMFILE
        plenty()
        taken += source.take()
        assert len(taken) == 4 - 1
        for arrival in taken:
            arrival.socket.close()
        source.close()


def error_of(act: Callable[[], object]) -> int | None:
    """The number of the OSError that it raises."""
    try:
        act()
    except OSError as error:
        return error.errno
    return None


def are_open_soon(names: list[str]) -> bool:
    """Whether these are open, and no others: some are closed in a thread."""
    ends = time.monotonic() + 20
    while (found := sorted(os.listdir("/proc/self/fd"))) != names and time.monotonic() < ends:
        time.sleep(0.005)
    return found == names


def custody_of(binds: Sequence[Bind]) -> Custody:
    custody = Custody()
    custody.open(binds, 16)
    return custody


def custody() -> None:
    """Take custody where there are too few descriptors, whichever it is that fails: nothing is left open."""
    binds = parse_binds(["one=127.0.0.1:0", "two=127.0.0.1:0"])
    before = sorted(os.listdir("/proc/self/fd"))
    for free in range(7):  # two listeners, the queue's ends and its gauge, and two more to measure it with
        leave(free)
        assert error_of(lambda: custody_of(binds)) == errno.EMFILE, free
        plenty()
        assert are_open_soon(before), free
    leave(7)
    custody = custody_of(binds)
    leave(3)
    copies = custody.batches()
    try:
        next(copies)
    except Refused as refusal:
        assert "Too many open files" in str(refusal)  # noqa: PT017 - no pytest in this process
    else:
        raise AssertionError("four copies of three descriptors")
    leave(4)
    assert len(next(custody.batches())) == 4
    plenty()
    custody.close()


def _send(queue: AdoptionQueue, fds: list[int]) -> int:
    try:
        adoption_queue.send(queue.writer, encode(infos(len(fds))), fds)
    except OSError as error:
        return error.errno or -1
    return 0


STORIES: dict[str, Callable[[], None]] = {
    story.__name__: story for story in (cut, without_reserve, with_reserve, lowered, too_many, gauge, spare, custody)
}

if __name__ == "__main__":
    before = sorted(os.listdir("/proc/self/fd"))
    STORIES[sys.argv[1]]()
    assert are_open_soon(before), "a descriptor was left open"
    sys.stdout.write("told\n")
