"""Both ends of the hand-off joined without a connection: what is given arrives, or everything is closed again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue, cookie
from stillup.host.channel import Channel
from stillup.host.descriptor_exchange import (
    Dialogue,
    Expect,
    ReceivedSockets,
    Send,
    accept_offer,
    converse,
    converse_blocking,
    in_batches,
    offer_sockets,
    return_copies,
    take_copies,
)
from stillup.host.sockets import describe
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Batch, Offer, Resume, Resumed, Taken, Welcome

pytestmark = pytest.mark.usefixtures("no_leak")

WELCOME = Welcome(handoff_messages.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)
Change = Callable[[Send], Send | None]


@dataclass
class Held:
    """What one end gives."""

    listeners: list[socket.socket]
    queue: AdoptionQueue
    older: AdoptionQueue

    @property
    def offer(self) -> Offer:
        infos = [describe(f"name-{number}", sock) for number, sock in enumerate(self.listeners)]
        return Offer(infos, self.queue.cookies, [self.older.cookies[0]])

    @property
    def resume(self) -> Resume:
        offer = self.offer
        return Resume(handoff_messages.PROTOCOL, "nonce", False, WELCOME, offer.listeners, offer.queue)

    @property
    def fds(self) -> list[int]:
        ends = [self.queue.reader, self.queue.writer, self.older.reader]
        return [sock.fileno() for sock in (*self.listeners, *ends)]


@pytest.fixture(params=[1, 2, 70], ids=["one", "two", "several batches"])
def held(request: pytest.FixtureRequest) -> Iterator[Held]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(request.param)]
        queues = AdoptionQueue.make(), AdoptionQueue.make()
        for queue in queues:
            stack.callback(queue.close)
        yield Held(listeners, *queues)


def as_it_is(action: Send) -> Send:
    return action


def join(giver: Dialogue[Any], taker: Dialogue[Any], change: Change = as_it_is) -> tuple[list[str], Any]:
    """Let each have what the other sends, ``change``d (None: lost); the messages' names, and the taker's result.

    Descriptors arrive as copies, as the kernel makes them.
    """
    names: list[str] = []
    box: dict[int, list[tuple[Any, list[int]]]] = {0: [], 1: []}
    asks: dict[int, Send | Expect | None] = {}
    results: dict[int, Any] = {}
    both = (giver, taker)

    def advance(end: int, answer: Any) -> None:
        try:
            asks[end] = both[end].send(answer)
        except StopIteration as stop:
            asks[end], results[end] = None, stop.value

    with contextlib.closing(giver), contextlib.closing(taker):
        try:
            advance(0, None)
            advance(1, None)
            while asks[0] or asks[1]:
                end = next(
                    (e for e in (0, 1) if isinstance(asks[e], Send) or (isinstance(asks[e], Expect) and box[e])), None
                )
                if end is None:
                    if 1 in results:
                        close(results[1])
                    raise PeerError("both wait")
                action = asks[end]
                if isinstance(action, Send):
                    names.append(type(action.message).__name__)
                    said = change(action)
                    if said is not None:
                        box[1 - end].append((said.message, [descriptors.duplicate(fd) for fd in said.fds]))
                    advance(end, None)
                else:
                    message, fds = box[end].pop(0)
                    assert isinstance(action, Expect)
                    if not isinstance(message, action.kind):
                        descriptors.close(fds)
                        raise PeerError(f"{type(message).__name__}, not {action.kind.__name__}")
                    advance(end, (message, fds))
        finally:
            for _, fds in (*box[0], *box[1]):
                descriptors.close(fds)
    return names, results.get(1)


def close(sockets: ReceivedSockets) -> None:
    for listener in sockets.listeners:
        listener.socket.close()
    if sockets.queue is not None:
        sockets.queue.close()
    for reader in sockets.older:
        reader.close()


def give(held: Held) -> Dialogue[None]:
    return offer_sockets(lambda: held.offer, in_batches(held.fds))


def test_what_is_offered_arrives(held: Held) -> None:
    """Every listener under its name, both ends of the queue and the older end, and each step is acknowledged."""
    names, sockets = join(give(held), accept_offer())
    assert [(one.name, cookie(one.socket)) for one in sockets.listeners] == [
        (f"name-{number}", cookie(sock)) for number, sock in enumerate(held.listeners)
    ]
    assert sockets.queue.cookies == held.queue.cookies
    assert [cookie(reader) for reader in sockets.older] == [held.older.cookies[0]]
    batches = -(-len(held.fds) // handoff_messages.BATCH_LIMIT)
    assert names == ["Taken", "Offer", "Taken", *["Batch", "Taken"] * batches]
    close(sockets)


def test_copies_come_back(held: Held) -> None:
    """What a worker returns is what it said it holds; the dialogue ends when the supervisor says so."""

    def take() -> Dialogue[ReceivedSockets]:
        yield Expect(Resume)
        sockets = yield from take_copies(held.resume)
        yield Send(Resumed())
        return sockets

    names, sockets = join(return_copies(held.resume, in_batches(held.fds[:-1])), take())
    assert [cookie(one.socket) for one in sockets.listeners] == [cookie(sock) for sock in held.listeners]
    assert sockets.queue.cookies == held.queue.cookies
    assert names[:3] == ["Resume", "Return", "Batch"]
    assert names[-2:] == ["Taken", "Resumed"]
    close(sockets)


def test_nothing_is_returned_by_a_worker_that_holds_nothing() -> None:
    """It drains: there is no batch, and no queue."""
    resume = Resume(handoff_messages.PROTOCOL, "nonce", True, WELCOME, [], None)
    dialogue = take_copies(resume)
    assert isinstance(dialogue.send(None), Send)
    with pytest.raises(StopIteration) as end:
        dialogue.send(None)
    assert end.value.value == ReceivedSockets([], None, [])


def more(action: Send) -> Send:
    return Send(Batch(action.message.count + 1), action.fds) if isinstance(action.message, Batch) else action


def fewer(action: Send) -> Send:
    return Send(action.message, action.fds[:-1]) if isinstance(action.message, Batch) else action


def swapped(action: Send) -> Send:
    return Send(action.message, action.fds[::-1]) if isinstance(action.message, Batch) else action


def a_file(action: Send) -> Send:
    return Send(action.message, [*action.fds[:-1], 0]) if isinstance(action.message, Batch) else action


def unacknowledged(action: Send) -> Send | None:
    return None if isinstance(action.message, Taken) and action.message.count else action


def miscounted(action: Send) -> Send:
    return Send(Taken(action.message.count + 1)) if isinstance(action.message, Taken) else action


def beside_the_offer(action: Send) -> Send:
    return Send(action.message, [1]) if isinstance(action.message, Offer) else action


@pytest.mark.parametrize(
    "change", [more, fewer, swapped, a_file, unacknowledged, miscounted, beside_the_offer], ids=lambda one: one.__name__
)
def test_whatever_is_wrong_ends_it_and_closes_everything(held: Held, change: Change) -> None:
    """A wrong count, a wrong socket, a step that nobody acknowledges: an error, and no descriptor stays open."""
    with pytest.raises(PeerError):
        join(give(held), accept_offer(), change)


@pytest.mark.parametrize("steps", range(1, 7))
def test_closed_in_the_middle_it_closes_what_came(held: Held, steps: int) -> None:
    """A receiver that is given up, by a deadline or the supervisor's end, keeps nothing."""
    giver, taker = give(held), accept_offer()

    def enough(action: Send) -> Send:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise PeerError("enough")
        return action

    with contextlib.suppress(PeerError):
        _, sockets = join(giver, taker, enough)
        close(sockets)


def understand(packet: bytes, kind: type[Any]) -> Any:
    message = (
        handoff_messages.decode_from_worker(packet)
        if kind is Taken
        else handoff_messages.decode_from_supervisor(packet)
    )
    if not isinstance(message, kind):
        raise PeerError(f"not {kind.__name__}")
    return message


async def test_async_and_blocking_ends_meet(held: Held) -> None:
    """The supervisor's end on a channel in its loop, the booting worker's on a blocking socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
    with theirs:
        theirs.settimeout(20)
        worker = asyncio.ensure_future(asyncio.to_thread(converse_blocking, theirs, understand, accept_offer()))
        await converse(channel, understand, give(held))
        sockets = await worker
    channel.close()
    assert len(sockets.listeners) == len(held.listeners)
    assert all(not os.get_inheritable(one.socket.fileno()) for one in sockets.listeners)
    close(sockets)


@pytest.mark.parametrize("size", [0, 1, 64, 65, 130])
def test_batches(size: int) -> None:
    """None is larger than a packet takes, none is empty, and together they are everything in its order."""
    batches: Sequence[Sequence[int]] = in_batches(list(range(size)))
    assert [fd for batch in batches for fd in batch] == list(range(size))
    assert all(0 < len(batch) <= handoff_messages.BATCH_LIMIT for batch in batches)
