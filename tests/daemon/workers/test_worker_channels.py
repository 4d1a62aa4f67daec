"""What workers have said and nobody has read yet is passed on when it has to be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from stillup.core.events import BeganServing, ChannelLost, Event, Reported
from stillup.core.worker_figures import WorkerFigures
from stillup.daemon.workers.worker_channels import WorkerChannels
from stillup.host import descriptors
from stillup.host.channel import Channel
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import FromWorker, Hello, Reopened, Report, Serving


class Channels:
    """The channels of workers that have their listeners already; what they say is not read by itself."""

    def __init__(self, stack: contextlib.ExitStack, size: int) -> None:
        self.heard: list[Event] = []
        self.ours = WorkerChannels(self.heard.append)
        stack.callback(self.ours.close)
        self.workers: dict[int, socket.socket] = {}
        for serial in range(1, size + 1):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.workers[serial] = stack.enter_context(theirs)
            channel = Channel(ours, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
            self.ours.open(serial, channel, handoff_messages.PROTOCOL)
            self.ours._speaking[serial] = channel

    def say(self, serial: int, *messages: FromWorker) -> None:
        for message in messages:
            self.workers[serial].send(handoff_messages.encode(message))


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


async def test_every_word_that_came_counts(stack: contextlib.ExitStack) -> None:
    """All that lies unread in any channel is passed on at once, each worker's in its order."""
    channels = Channels(stack, 3)
    channels.say(1, Report(WorkerFigures({}, 1)), Report(WorkerFigures({}, 2)))
    channels.say(3, Report(WorkerFigures({}, 7)))
    channels.ours.catch_up()
    assert channels.heard == [
        Reported(1, WorkerFigures({}, 1)),
        Reported(1, WorkerFigures({}, 2)),
        Reported(3, WorkerFigures({}, 7)),
    ]
    channels.ours.catch_up()
    assert len(channels.heard) == 3


async def test_a_worker_that_hung_up_is_passed_over(stack: contextlib.ExitStack) -> None:
    """Its last words count; the rest is for its process's end."""
    channels = Channels(stack, 2)
    channels.say(1, Report(WorkerFigures({}, 1)))
    channels.workers[1].close()
    channels.say(2, Report(WorkerFigures({}, 2)))
    channels.ours.catch_up()
    assert channels.heard == [Reported(1, WorkerFigures({}, 1)), Reported(2, WorkerFigures({}, 2))]


async def test_a_worker_that_breaks_the_protocol_is_cut_off(stack: contextlib.ExitStack) -> None:
    """Once, and the others are heard all the same."""
    channels = Channels(stack, 2)
    channels.say(1, Hello(1, "again"), Report(WorkerFigures({}, 1)))
    channels.say(2, Report(WorkerFigures({}, 2)))
    channels.ours.catch_up()
    channels.ours.catch_up()
    assert [type(event) for event in channels.heard] == [ChannelLost, Reported]
    with pytest.raises(ConnectionResetError):  # and not only closed: what it said last was not read
        channels.workers[1].recv(1)


async def test_a_worker_that_comes_back_is_heard_before_its_replacement(stack: contextlib.ExitStack) -> None:
    """A worker that was found to hang is killed when its replacement serves: what it said before that comes first."""
    channels = Channels(stack, 2)
    channels.say(1, Report(WorkerFigures({}, 1)))
    channels.say(2, Serving(), Report(WorkerFigures({}, 2)))
    packet = channels.ours._speaking[2].receive_now()
    channels.ours._understand(2, *packet)
    assert channels.heard == [Reported(1, WorkerFigures({}, 1)), BeganServing(2)]


def given(worker: socket.socket) -> int:
    """How many descriptors a worker is given, with the word that they are the log's; 0 if it is told nothing."""
    try:
        packet, fds = descriptors.receive(worker, handoff_messages.MESSAGE_LIMIT, handoff_messages.BATCH_LIMIT)
    except BlockingIOError:
        return 0
    descriptors.close(fds)
    assert isinstance(handoff_messages.decode_from_supervisor(packet), Reopened)
    return len(fds)


async def test_a_log_file_that_is_reopened_is_given_to_all(stack: contextlib.ExitStack) -> None:
    """At once to who has its listeners; to who is in the middle of its hand-off, and expects another word, after it."""
    channels = Channels(stack, 2)
    for worker in channels.workers.values():
        worker.setblocking(False)
    late = channels.ours._speaking.pop(2)
    channels.ours.reopened()
    assert [given(worker) for worker in channels.workers.values()] == [2, 0]
    listening = asyncio.create_task(channels.ours.listen(2, late))
    await asyncio.sleep(0)
    assert [given(worker) for worker in channels.workers.values()] == [0, 2]
    listening.cancel()


@pytest.mark.parametrize(("protocol", "understands"), [(handoff_messages.PROTOCOL, True), (3, False)])
async def test_who_comes_back_is_given_the_log(protocol: int, understands: bool, stack: contextlib.ExitStack) -> None:
    """It writes to what another supervisor had, perhaps; one of an earlier stillup would take the word for a fault."""
    channels = Channels(stack, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.enter_context(theirs).setblocking(False)
    channel = Channel(ours, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
    channels.ours.open(1, channel, protocol, comes_back=True)
    listening = asyncio.create_task(channels.ours.listen(1, channel))
    await asyncio.sleep(0)
    assert given(theirs) == (2 if understands else 0)
    listening.cancel()
