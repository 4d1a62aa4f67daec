"""Handing listeners and adoption queues to another process: what both ends of the hand-off channel do, written once.

``wire.handoff_messages`` draws the order. Each end is a dialogue: a generator that yields what it wants to ``Send`` or
``Expect`` and performs no I/O on the connection, so that supervisor (``converse``) and booting worker
(``converse_blocking``) share it, and a test can join two ends without a socket.

1. Descriptions come first, then the descriptors in batches of at most BATCH_LIMIT, and each batch is acknowledged with
   its count before the next is sent.
2. The receiver derives from each socket itself what it is, before its batch is acknowledged: listeners as they
   come, the ends of queues with the last batch.
3. What was received is closed if anything is wrong or the dialogue is closed before its end. What is sent stays the
   sender's.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from stillup.core.amounts import amount
from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue, receive_end
from stillup.host.blocking_close import close_in_thread, close_socket_in_thread
from stillup.host.channel import Channel
from stillup.host.sockets import Listener, receive_listener
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import (
    Batch,
    FromSupervisor,
    FromWorker,
    ListenerInfo,
    Offer,
    Resume,
    Resumed,
    Return,
    Taken,
)

T = TypeVar("T")
M = TypeVar("M", bound=FromSupervisor | FromWorker)
Understand = Callable[[bytes, type[M]], M]
"""Decodes a packet that should be a message of that type, empty when the other end hung up; else raises PeerError."""


class Send(msgspec.Struct, frozen=True):
    """Send a message, with descriptors beside it; they stay the sender's."""

    message: FromSupervisor | FromWorker
    fds: Sequence[int] = ()


class Expect(msgspec.Struct, frozen=True):
    """Receive a message of that type; the dialogue is sent it and the descriptors beside it, which it owns."""

    kind: type[FromSupervisor | FromWorker]


Dialogue = Generator[Send | Expect, Any, T]


class ReceivedSockets(msgspec.Struct, frozen=True):
    """What came, each socket being what it was said to be. The sockets belong to who has this value."""

    listeners: list[Listener]
    queue: AdoptionQueue | None
    older: list[socket.socket]
    """Reading ends of other queues."""


def offer_sockets(offer: Callable[[], Offer], batches: Iterable[Sequence[int]]) -> Dialogue[None]:
    """The supervisor gives a new worker its listeners.

    Args:
        offer: called when the worker has understood its welcome.
        batches: the descriptors, in the offer's order; each batch is the caller's again when the next is asked for.
    """
    yield from _acknowledged(0)
    yield Send(offer())
    yield from _acknowledged(0)
    yield from _give(batches)


def accept_offer() -> Dialogue[ReceivedSockets]:
    """A new worker takes the listeners that the supervisor offers."""
    yield Send(Taken(0))
    offer: Offer = yield from _alone(Offer)
    yield Send(Taken(0))
    return (yield from _take(offer.listeners, offer.queue, offer.older))


def return_copies(resume: Resume, batches: Iterable[Sequence[int]], figures: Sequence[int] = ()) -> Dialogue[None]:
    """A worker comes back to a supervisor, and gives copies of what it holds, in the order of ``resume``.

    ``figures``: the memory in which it counts, if there is any, which goes beside that.
    """
    yield Send(resume, figures)
    yield from _alone(Return)
    yield from _give(batches)
    yield from _alone(Resumed)


def take_copies(resume: Resume) -> Dialogue[ReceivedSockets]:
    """The supervisor asks a worker that has come back for the copies that ``resume`` announced, and takes them.

    The worker expects Resumed when they have found their place.
    """
    yield Send(Return())
    return (yield from _take(resume.listeners, resume.queue or (), ()))


def in_batches(fds: Sequence[int]) -> list[Sequence[int]]:
    """As many descriptors at a time as go beside one packet."""
    limit = handoff_messages.BATCH_LIMIT
    return [fds[start : start + limit] for start in range(0, len(fds), limit)]


def _give(batches: Iterable[Sequence[int]]) -> Dialogue[None]:
    for batch in batches:
        yield Send(Batch(len(batch)), batch)
        yield from _acknowledged(len(batch))


def _take(listeners: Sequence[ListenerInfo], queue: Sequence[int], older: Sequence[int]) -> Dialogue[ReceivedSockets]:
    fds: list[int] = []
    taken: list[Listener] = []
    ends: AdoptionQueue | None = None
    readers: list[socket.socket] = []
    left = len(listeners) + len(queue) + len(older)
    with contextlib.ExitStack() as undo:
        undo.callback(lambda: close_in_thread(fds))
        while left:
            batch, came = yield Expect(Batch)
            fds += came
            if batch.count != len(came) or not 0 < len(came) <= left:
                raise PeerError(
                    f"{amount(batch.count, 'descriptor was', 'descriptors were')} announced, {len(came)} came"
                )
            left -= len(came)
            while fds and len(taken) < len(listeners):
                info = listeners[len(taken)]
                taken.append(Listener(info.name, receive_listener(fds.pop(0), info)))
                undo.callback(close_socket_in_thread, taken[-1].socket)
            if not left and queue:
                ends = AdoptionQueue.receive((fds.pop(0), fds.pop(0)), queue)
                undo.callback(ends.close_in_thread)
            if not left:
                for said in older:
                    readers.append(receive_end(fds.pop(0), said))
                    undo.callback(close_socket_in_thread, readers[-1])
            yield Send(Taken(len(came)))
        undo.pop_all()
    return ReceivedSockets(taken, ends, readers)


def _alone(kind: type[T]) -> Dialogue[T]:
    """A message that no descriptor belongs to."""
    message, fds = yield Expect(kind)  # type: ignore[arg-type]
    close_in_thread(fds)
    if fds:
        raise PeerError(f"it sent descriptors with {kind.__name__}")
    answer: T = message
    return answer


def _acknowledged(count: int) -> Dialogue[None]:
    taken = yield from _alone(Taken)
    if taken.count != count:
        raise PeerError(f"it took {amount(taken.count, 'descriptor')} of {count}")


async def converse(channel: Channel, understand: Understand[Any], dialogue: Dialogue[T]) -> T:
    """Hold a dialogue on a channel; what comes of it.

    Raises:
        PeerError: the other end broke the protocol. Everything that was received is closed.
        OSError: the connection broke. So it is then.
    """
    with contextlib.closing(dialogue):
        answer = None
        while True:
            try:
                action = dialogue.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(action, Send):
                await channel.send(handoff_messages.encode(action.message), action.fds)
                answer = None
            else:
                answer = understood(*await channel.receive(), understand, action.kind)


def converse_blocking(sock: socket.socket, understand: Understand[Any], dialogue: Dialogue[T]) -> T:
    """As ``converse``, before an event loop runs; the socket's timeout is that of each step."""
    with contextlib.closing(dialogue):
        answer = None
        while True:
            try:
                action = dialogue.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(action, Send):
                descriptors.send(sock, handoff_messages.encode(action.message), action.fds)
                answer = None
            else:
                answer = expect_blocking(sock, understand, action.kind)


def expect_blocking(sock: socket.socket, understand: Understand[M], kind: type[M]) -> tuple[M, list[int]]:
    """Receive one message, and the descriptors beside it, which are the caller's.

    Raises:
        PeerError: it is another message, or none. Its descriptors are closed.
        OSError: as recvmsg(2); TimeoutError when the socket's timeout is over.
    """
    packet, fds = descriptors.receive(sock, handoff_messages.MESSAGE_LIMIT, handoff_messages.BATCH_LIMIT)
    return understood(packet, fds, understand, kind)


def understood(packet: bytes, fds: list[int], understand: Understand[M], kind: type[M]) -> tuple[M, list[int]]:
    """A packet as a message of that type, with its descriptors, which are the caller's.

    Raises:
        PeerError: it is another message, or none. Its descriptors are closed.
    """
    try:
        return understand(packet, kind), fds
    except BaseException:
        close_in_thread(fds)
        raise
