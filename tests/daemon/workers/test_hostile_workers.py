"""What a worker may do on its channel that means ill: what that costs everybody else has bounds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillup.core import message_allowance
from stillup.core.events import BecameReady, BeganServing, ChannelLost, Event, Reported, WorkerBootFailed
from stillup.core.message_allowance import AT_START, MOST, PER_SECOND
from stillup.core.worker_figures import WorkerFigures
from stillup.daemon.workers import worker_channels
from stillup.daemon.workers.worker_channels import MOST_A_TURN, MOST_CAUGHT_UP, WorkerChannels
from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.blocking_close import hang_up
from stillup.host.channel import Channel
from stillup.wire import handoff_messages, worker_words
from stillup.wire.handoff_messages import BootFailed, Hurry, Ready, Report, Serving
from tests.asgi.event_loops import run, until
from tests.host.conftest import open_descriptors
from tests.host.slow_sockets import slow_to_close
from tests.wire.wire_messages import ANYTHING, Said, things

REPORT = handoff_messages.encode(Report(WorkerFigures({"idle": 3}, 17)))


class Flooded:
    """One worker's channel and what was heard on it; the other end says what it likes."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.events: list[Event] = []
        self.channels = WorkerChannels(self.events.append)
        stack.callback(self.channels.close)
        self._stack = stack

    def connect(self, buffer: int | None = 1 << 20) -> tuple[Channel, socket.socket]:
        """The worker's channel here, and its own end, with a buffer of so many bytes, or as the kernel makes it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._stack.enter_context(theirs)
        if buffer is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        limit, most = handoff_messages.MESSAGE_LIMIT, handoff_messages.BATCH_LIMIT
        channel = Channel(ours, limit=limit, most=most, close=hang_up)
        self.channels.open(1, channel, handoff_messages.PROTOCOL)
        return channel, theirs

    async def listen(self, channel: Channel, serial: int = 1) -> None:
        """As admission does."""
        try:
            await self.channels.listen(serial, channel)
        except PeerError as error:
            self.channels.cut_off(serial, channel, error)
        except OSError:
            pass
        finally:
            self.channels.stopped(serial, channel)

    def stands_still(self, seconds: float) -> None:
        """So much time has passed, in which nothing was read, for an account that fills with it."""
        self.channels.may_come_back(1)
        account = self.channels._allowances[1]
        account.left = min(MOST, AT_START + PER_SECOND * seconds)

    @property
    def lost(self) -> list[ChannelLost]:
        return [event for event in self.events if isinstance(event, ChannelLost)]

    @property
    def reports(self) -> int:
        return sum(isinstance(event, Reported) for event in self.events)


@pytest.fixture
def flooded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flooded]:
    """Its account does not fill with time, of which a busy machine has any amount."""
    monkeypatch.setattr(message_allowance, "PER_SECOND", 0.0)
    with contextlib.ExitStack() as stack:
        yield Flooded(stack)


def fill(worker: socket.socket, packet: bytes, most: int = 100_000) -> int:
    """Say it again and again, until nothing more fits; how often."""
    for said in range(most):
        try:
            worker.send(packet)
        except OSError:
            return said
    return most


async def test_a_flood_takes_a_few_messages_a_turn(flooded: Flooded) -> None:
    """However much lies unread, the loop has its turn after a few messages, and everybody else with it."""
    channel, worker = flooded.connect()
    assert fill(worker, REPORT, 500) > 10 * MOST_A_TURN
    most = before = 0
    listening = asyncio.create_task(flooded.listen(channel))
    while flooded.reports < 10 * MOST_A_TURN:
        await asyncio.sleep(0)
        most, before = max(most, flooded.reports - before), flooded.reports
    assert 0 < most <= MOST_A_TURN
    worker.close()
    await listening


async def test_who_says_too_much_is_cut_off(flooded: Flooded) -> None:
    """A worker that never stops is heard so long, then cut off: as one that failed, with the reason."""
    channel, worker = flooded.connect()
    listening = asyncio.create_task(flooded.listen(channel))
    said = 0
    while not flooded.lost:
        said += fill(worker, REPORT)
        await asyncio.sleep(0)
    await listening
    assert flooded.reports == AT_START
    assert [event.message for event in flooded.lost] == [
        "broke the hand-off protocol: it says more than a worker has to say"
    ]
    with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
        worker.send(REPORT)


async def test_nor_by_all_that_lies_unread(flooded: Flooded) -> None:
    """Before silence is judged so much is read at a time, and no more in all than it may say."""
    channel, worker = flooded.connect(buffer=4 << 20)
    flooded.channels._speaking[1] = channel
    fill(worker, REPORT)
    flooded.channels.catch_up()
    assert flooded.reports == MOST_CAUGHT_UP
    while not flooded.lost:
        flooded.channels.catch_up()
    assert flooded.reports == AT_START
    assert channel.fileno() == -1


async def test_another_channel_is_no_other_account(flooded: Flooded) -> None:
    """One that was cut off says no more by coming back, and comes back when it may say something again."""
    assert flooded.channels.may_come_back(1)
    channel, worker = flooded.connect()
    listening = asyncio.create_task(flooded.listen(channel))
    while not flooded.lost:
        fill(worker, REPORT)
        await asyncio.sleep(0)
    await listening
    heard = flooded.reports
    assert not flooded.channels.may_come_back(1)
    channel, worker = flooded.connect()
    listening = asyncio.create_task(flooded.listen(channel))
    fill(worker, REPORT, 500)
    await until(lambda: len(flooded.lost) == 2)
    await listening
    assert flooded.reports == heard
    flooded.channels.forget(1)
    assert flooded.channels.may_come_back(1), "it is another worker now"


async def test_why_it_failed_is_heard_behind_what_its_hand_off_was_to_read(flooded: Flooded) -> None:
    """A worker takes its listeners, fails and ends at once: its end is seen first, and its reason lies behind that."""
    _, worker = flooded.connect()
    worker.send(handoff_messages.encode(handoff_messages.Taken(1)))
    worker.send(handoff_messages.encode(handoff_messages.boot_failed("import", "no module")))
    worker.close()
    flooded.channels.forget(1)
    assert [(event.stage, event.message) for event in flooded.events if isinstance(event, WorkerBootFailed)] == [
        ("import", "no module")
    ]


async def test_all_that_a_socket_holds_is_heard(flooded: Flooded) -> None:
    """A supervisor that was stopped finds all that its workers could say; none of them has said too much."""
    channel, worker = flooded.connect(buffer=None)
    flooded.stands_still(MOST / PER_SECOND)
    flooded.channels._speaking[1] = channel
    said = fill(worker, REPORT)
    while flooded.reports < said and not flooded.lost:
        flooded.channels.catch_up()
    assert (flooded.reports, flooded.lost) == (said, [])


async def test_large_messages(flooded: Flooded) -> None:
    """The largest that there may be count for many."""
    channel, worker = flooded.connect()
    large = handoff_messages.encode(Report(WorkerFigures({"x" * 120_000: 1})))
    listening = asyncio.create_task(flooded.listen(channel))
    while not flooded.lost:
        fill(worker, large)
        await asyncio.sleep(0)
    await listening
    assert flooded.reports < 20


async def test_long_words_are_cut(flooded: Flooded) -> None:
    """What goes on record, into the history and to people is no longer than it has to be."""
    channel, worker = flooded.connect()
    for message in (Ready("p" * 100_000), BootFailed("s" * 1000, "m" * 50_000), Report(WorkerFigures(), "r" * 50_000)):
        worker.send(handoff_messages.encode(message))
    worker.close()
    await flooded.listen(channel)
    assert flooded.events == [
        BecameReady(1, "p" * 4096),
        WorkerBootFailed(1, "worker", "m" * 4100),
        Reported(1, WorkerFigures(), worker_words.UNKNOWN_REASON),
    ]


@pytest.mark.parametrize("packet", [b'{"type":"Ready","a secret":1}', b'{"type":"a secret"}'])
async def test_no_word_of_a_workers_is_in_why_it_is_cut_off(flooded: Flooded, packet: bytes) -> None:
    """That is in an event, which viewers read."""
    channel, worker = flooded.connect()
    worker.send(packet)
    worker.close()
    await flooded.listen(channel)
    (lost,) = flooded.lost
    assert "not a message of the hand-off protocol" in lost.message
    assert "secret" not in lost.message


def has_open(number: int) -> bool:
    return len(open_descriptors()) == number


async def test_descriptors_are_closed_as_they_come(flooded: Flooded) -> None:
    """As many as fit beside a message, or more: each is closed, and the worker is cut off at once."""
    for count in (1, handoff_messages.BATCH_LIMIT, 253):
        channel, worker = flooded.connect()
        left = len(open_descriptors()) - 1  # without the channel's own
        for _ in range(3):
            descriptors.send(worker, REPORT, [0] * count)
        await flooded.listen(channel)
        await until(partial(has_open, left))
    assert len(flooded.lost) == 3
    assert flooded.reports == 0


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("unread", [False, True])
async def test_what_takes_long_to_close(flooded: Flooded, *, inside: bool, unread: bool) -> None:
    """Whether it is read or lies in the channel when that is closed, nobody waits for it."""
    channel, worker = flooded.connect()
    with slow_to_close(inside=inside) as slow:
        began = time.monotonic()
        descriptors.send(worker, REPORT, [slow.fileno()])
        os.close(slow.detach())
        if unread:
            channel.close()
        else:
            await flooded.listen(channel)
            assert len(flooded.lost) == 1
        assert time.monotonic() - began < 15  # half of what the close takes


async def test_who_reads_nothing_is_cut_off(flooded: Flooded) -> None:
    """What is sent to a worker never waits, and what it does not read has an end: it can be told nothing any more."""
    channel, _ = flooded.connect()
    flooded.channels._speaking[1] = channel
    told = 0
    while flooded.channels.tell(1, Hurry()):
        told += 1
        assert told < 10_000
    assert [event.message for event in flooded.lost] == [
        "broke the hand-off protocol: it reads nothing of what it is told"
    ]
    assert not flooded.channels.tell(1, Hurry())
    assert len(flooded.lost) == 1


async def test_serving_again_and_again(flooded: Flooded) -> None:
    """A word that has everybody's messages read is bounded by the same account."""
    channel, worker = flooded.connect()
    word = handoff_messages.encode(Serving())
    listening = asyncio.create_task(flooded.listen(channel))
    while not flooded.lost:
        fill(worker, word)
        await asyncio.sleep(0)
    await listening
    assert sum(isinstance(event, BeganServing) for event in flooded.events) <= MOST


async def test_its_last_words_have_an_end(flooded: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a worker that has ended may have its channel, and goes on talking: nobody listens for ever."""
    monkeypatch.setattr(worker_channels, "cost_of", lambda _: AT_START / 4)
    _, worker = flooded.connect()
    fill(worker, REPORT, 50)
    flooded.channels.forget(1)
    assert flooded.reports == 4


@pytest.mark.usefixtures("first_loop")
@settings(deadline=8000)  # ms: less than a step of a conversation may take, and more than a busy machine does
@given(rest=st.lists(ANYTHING, max_size=4).map(lambda parts: [word for part in parts for word in part]))
def test_anything_beside_a_worker_that_means_well(rest: list[Said]) -> None:
    """Any words with any descriptors in any order, between reports: another's are all heard, and nothing stays open."""

    async def story() -> None:
        with things() as have, contextlib.ExitStack() as stack:
            flooded = Flooded(stack)
            before = open_descriptors()
            channel, worker = flooded.connect()
            ours, good = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            other = Channel(ours, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
            flooded.channels.open(2, other, handoff_messages.PROTOCOL)
            tasks = [asyncio.create_task(flooded.listen(channel)), asyncio.create_task(flooded.listen(other, 2))]
            for number, word in enumerate(rest):
                with contextlib.suppress(OSError):  # it was cut off
                    worker.send(REPORT)
                    have.send(worker, word)
                good.send(handoff_messages.encode(Report(WorkerFigures({}, number))))
                await asyncio.sleep(0)
            flooded.channels.catch_up()
            worker.close()
            good.close()
            await asyncio.gather(*tasks)
            reports = [event for event in flooded.events if isinstance(event, Reported) and event.serial == 2]
            heard = [event.figures.requests for event in reports]
            assert heard == list(range(len(rest)))
            assert len(flooded.lost) <= 1
            flooded.channels.close()
            await until(lambda: open_descriptors() == before)

    run(story())
