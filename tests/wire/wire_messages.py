"""What a party of the hand-off channel may say, true or not, and what it may send beside it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.sockets import describe
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import FromSupervisor, FromWorker, ListenerInfo
from tests.wire.test_handoff_messages import FROM_SUPERVISOR, FROM_WORKER, noise

TOO_MANY: Final = ["file"] * (handoff_messages.BATCH_LIMIT + 6)
WORDS: Final = st.one_of(
    FROM_WORKER.map(handoff_messages.encode), FROM_SUPERVISOR.map(handoff_messages.encode), noise()
)
COUNTS: Final = st.integers(-1, 4)
LIKELY: Final = st.one_of(
    st.builds(handoff_messages.Taken, COUNTS).map(handoff_messages.encode),
    st.builds(handoff_messages.Batch, COUNTS).map(handoff_messages.encode),
)
"""What goes on where a hand-off has begun."""


@dataclass
class Things:
    """What may go beside a packet, by name; and the listener and the queue that a party holds."""

    fds: dict[str, int]
    infos: list[ListenerInfo]
    cookies: tuple[int, int]

    @property
    def right(self) -> list[str]:
        """What belongs beside a batch of everything."""
        return ["listener", "reader", "writer"]

    def send(self, sock: socket.socket, said: Said) -> None:
        """Say it.

        Raises:
            OSError: nobody hears it.
        """
        descriptors.send(sock, said.packet, [self.fds[name] for name in said.beside])


KINDS: Final = ("listener", "reader", "writer", "file", "pipe", "stream", "bound")


@contextlib.contextmanager
def things() -> Iterator[Things]:
    """A listener, a queue, and what is neither."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        bound = stack.enter_context(socket.socket())
        bound.bind(("127.0.0.1", 0))
        streams = socket.socketpair()
        for stream in streams:
            stack.enter_context(stream)
        queue = AdoptionQueue.make()
        stack.callback(queue.close)
        pipe = os.pipe()
        stack.callback(descriptors.close, pipe)
        file = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, file)
        numbers = [listener.fileno(), queue.reader.fileno(), queue.writer.fileno(), file, pipe[0]]
        numbers += [streams[0].fileno(), bound.fileno()]
        yield Things(dict(zip(KINDS, numbers, strict=True)), [describe("web", listener)], queue.cookies)


@dataclass(frozen=True)
class Said:
    """One packet, and the names of what is sent beside it."""

    packet: bytes
    beside: Sequence[str] = ()


BESIDE: Final[st.SearchStrategy[list[str]]] = st.one_of(
    st.just([]),
    st.just(["listener", "reader", "writer"]),
    st.lists(st.sampled_from(KINDS), max_size=4),
    st.just(TOO_MANY),
)


def said(message: FromWorker | FromSupervisor, *beside: str) -> Said:
    return Said(handoff_messages.encode(message), beside)


BATCHES: Final = st.lists(st.sampled_from(KINDS), min_size=1, max_size=4).map(
    lambda kinds: said(handoff_messages.Batch(len(kinds)), *kinds)
)
"""As many descriptors as are announced, of the right kinds or of others."""
ANYTHING: Final = st.lists(BATCHES | st.builds(Said, LIKELY | WORDS, BESIDE), max_size=4)
