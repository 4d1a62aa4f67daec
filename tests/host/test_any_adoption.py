"""The adoption queue, into which a worker puts anything: whatever that is, the others' connections come through."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillup.errors import PeerError
from stillup.host import adoption_queue
from stillup.host.sources import Adoptions, Arrival
from stillup.wire.adoption_packet import ConnectionInfo, encode
from tests.host.conftest import open_descriptors
from tests.host.queue_connections import a_queue

GOOD = "good"
"""The listener that no stranger names."""
MOST = 4
"""Connections a packet."""
INFOS = st.builds(
    ConnectionInfo,
    st.text("abc\0\x1b\u2028", max_size=300),
    st.floats(),
    st.integers(-(2**60), 2**60),
    st.none() | st.floats(),
)
PACKETS = st.binary(max_size=64) | st.lists(INFOS, max_size=6).map(encode)
KINDS = st.sampled_from(["stream", "datagram", "listener", "pipe", "null", "queue"])
STRANGE = st.tuples(PACKETS, st.lists(KINDS, max_size=6))


@contextlib.contextmanager
def things() -> Iterator[dict[str, int]]:
    """A descriptor of each kind."""
    with contextlib.ExitStack() as stack:
        sockets = {
            "stream": socket.socket(),
            "datagram": socket.socket(type=socket.SOCK_DGRAM),
            "listener": socket.create_server(("127.0.0.1", 0)),
            "queue": socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        }
        for sock in sockets.values():
            stack.enter_context(sock)
        pipe = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        for fd in (*pipe, null):
            stack.callback(os.close, fd)
        yield {"pipe": pipe[0], "null": null, **{kind: sock.fileno() for kind, sock in sockets.items()}}


@pytest.mark.usefixtures("no_leak")
@given(st.lists(STRANGE, max_size=5))
@example([(b"", [])])
def test_whatever_is_put_into_the_queue(strange: list[tuple[bytes, list[str]]]) -> None:
    """Any bytes with any descriptors, in any order, between good connections: these arrive, nothing else stays open."""
    with things() as have, a_queue() as queue:
        before = open_descriptors()
        source = Adoptions(queue.reader.dup(), MOST)
        came: list[Arrival] = []
        for number, (packet, kinds) in enumerate(strange):
            adoption_queue.send(queue.writer, packet, [have[kind] for kind in kinds])
            one, other = socket.socketpair()
            with one, other:
                adoption_queue.send(queue.writer, encode([ConnectionInfo(GOOD, 1.0, number)]), [other.fileno()])
            for _ in range(2):
                with contextlib.suppress(PeerError):
                    came += source.take()
        good = [arrival.info.requests for arrival in came if arrival.info is not None and arrival.info.listener == GOOD]
        assert good == list(range(len(strange)))
        for arrival in came:
            arrival.socket.close()
        source.close()
        assert open_descriptors() == before
