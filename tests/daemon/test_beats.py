"""The look for silent workers: what is read before it, and when it means nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import pytest

from supervisor.core.events import BeatsDue, BeganServing, ChannelLost, Event, Reported
from supervisor.core.model import Fleet
from supervisor.daemon import beats
from supervisor.daemon.handoff import HandoffDoor
from supervisor.daemon.holder import Holder
from supervisor.host.channel import Channel
from supervisor.wire import handoff
from supervisor.wire.handoff import FromWorker, Hello, Report, Serving
from tests.asgi.running import until


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "TICK", 0.01)
    monkeypatch.setattr(beats, "STALL", 0.2)


class Log:
    """What the tick has done, in order; and whether what it looks at can be written to."""

    def __init__(self) -> None:
        self.done: list[BeatsDue | str] = []
        self.can_write = True

    @property
    def looks(self) -> list[BeatsDue]:
        return [one for one in self.done if isinstance(one, BeatsDue)]

    async def until_looks(self, more: int) -> list[BeatsDue]:
        """The next looks, as many."""
        before = len(self.looks)
        await until(lambda: len(self.looks) >= before + more)
        return self.looks[before : before + more]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        task = asyncio.get_running_loop().create_task(
            beats.watch_beats(lambda: self.done.append("caught up"), self.done.append, lambda: self.can_write)
        )
        try:
            yield
        finally:
            task.cancel()


async def test_what_lies_unread_is_read_before_each_look(quick: None) -> None:
    """And the silence ends when the reading begins. The first look of a supervisor judges nobody."""
    log = Log()
    with log.watched():
        began = asyncio.get_running_loop().time()
        await log.until_looks(3)
    assert log.done[:4:2] == ["caught up", "caught up"]
    assert [look.late for look in log.looks[:3]] == [True, False, False]
    assert began <= log.looks[0].at < log.looks[1].at <= asyncio.get_running_loop().time()


async def test_a_look_that_comes_late_is_late(quick: None) -> None:
    """After a stall of our own one look is late, and the next is not."""
    log = Log()
    with log.watched():
        await log.until_looks(2)
        asyncio.get_running_loop().slow_callback_duration = 10
        time.sleep(0.3)  # noqa: ASYNC251 - this is the stall
        late, next_one = await log.until_looks(2)
    assert (late.late, next_one.late) == (True, False)


async def test_a_look_is_late_while_nothing_can_be_written(quick: None) -> None:
    """The workers write to the same pipe: while it is full no silence means anything."""
    log = Log()
    with log.watched():
        await log.until_looks(1)
        log.can_write = False
        assert [look.late for look in await log.until_looks(2)] == [True, True]
        log.can_write = True
        assert [look.late for look in await log.until_looks(1)] == [False]


Ask = Callable[[Event], Awaitable[Fleet]]


class Door:
    """The supervisor's door, with workers that have their listeners already; what they say is not read by itself."""

    def __init__(self, stack: contextlib.ExitStack, size: int) -> None:
        self.heard: list[Event] = []
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        sock.bind("")
        sock.listen()
        self.door = HandoffDoor(sock, cast("Holder", None), self.heard.append, cast("Ask", None))
        stack.callback(self.door.close)
        self.workers: dict[int, socket.socket] = {}
        for serial in range(1, size + 1):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.workers[serial] = stack.enter_context(theirs)
            channel = Channel(ours, limit=handoff.MESSAGE_LIMIT, most=handoff.BATCH_LIMIT)
            self.door._channels[serial] = self.door._speaking[serial] = channel

    def say(self, serial: int, *messages: FromWorker) -> None:
        for message in messages:
            self.workers[serial].send(handoff.encode(message))


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


async def test_every_word_that_came_counts(stack: contextlib.ExitStack) -> None:
    """All that lies unread in any channel is passed on at once, each worker's in its order."""
    door = Door(stack, 3)
    door.say(1, Report({}, 1), Report({}, 2))
    door.say(3, Report({}, 7))
    door.door.catch_up()
    assert door.heard == [Reported(1, {}, 1), Reported(1, {}, 2), Reported(3, {}, 7)]
    door.door.catch_up()
    assert len(door.heard) == 3


async def test_who_hung_up_is_passed_over(stack: contextlib.ExitStack) -> None:
    """Its last words count; the rest is for its process's end."""
    door = Door(stack, 2)
    door.say(1, Report({}, 1))
    door.workers[1].close()
    door.say(2, Report({}, 2))
    door.door.catch_up()
    assert door.heard == [Reported(1, {}, 1), Reported(2, {}, 2)]


async def test_who_breaks_the_protocol_is_cut_off(stack: contextlib.ExitStack) -> None:
    """Once, and the others are heard all the same."""
    door = Door(stack, 2)
    door.say(1, Hello(1, "again"), Report({}, 1))
    door.say(2, Report({}, 2))
    door.door.catch_up()
    door.door.catch_up()
    assert [type(event) for event in door.heard] == [ChannelLost, Reported]
    with pytest.raises(ConnectionResetError):  # and not only closed: what it said last was not read
        door.workers[1].recv(1)


async def test_who_comes_back_is_heard_before_its_heir(stack: contextlib.ExitStack) -> None:
    """A worker that was found to hang is killed when its heir serves: whatever it said before that comes first."""
    door = Door(stack, 2)
    door.say(1, Report({}, 1))
    door.say(2, Serving(), Report({}, 2))
    packet = door.door._speaking[2].receive_now()
    door.door._understand(2, *packet)
    assert door.heard == [Reported(1, {}, 1), BeganServing(2)]
