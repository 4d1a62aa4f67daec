"""An adoption queue without room, and what is in it."""

from __future__ import annotations

import contextlib
import os

from stillup.host import adoption_queue, descriptors
from stillup.host.adoption_queue import AdoptionQueue
from stillup.wire.adoption_packet import PACKET_LIMIT, ConnectionInfo, decode
from tests.host.conftest import none_is_closing

FILLING = b"x" * 1000


def fill(queue: AdoptionQueue) -> int:
    """Fill the queue with packets of no use; how many there are."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            queue.writer.send(FILLING)
            sent += 1
    return sent


def packets(queue: AdoptionQueue) -> list[list[ConnectionInfo]]:
    """Take all that is in the queue, and end its connections; what was said of them, a packet at a time."""
    taken = []
    with contextlib.suppress(BlockingIOError):
        while (received := adoption_queue.receive(queue.reader, PACKET_LIMIT, 64)).packet:
            descriptors.close(received.fds)
            if received.packet != FILLING:
                infos = decode(received.packet)
                assert len(infos) == len(received.fds)
                taken.append(infos)
    return taken


def empty(queue: AdoptionQueue, filling: int) -> None:
    """Take the filling out, and nothing else."""
    for _ in range(filling):
        assert queue.reader.recv(PACKET_LIMIT) == FILLING


def open_descriptors() -> int:
    none_is_closing()
    return len(os.listdir("/proc/self/fd"))
