"""The look for silent workers: what is read before it, and when it means nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from stillup.core.events import HeartbeatsDue
from stillup.daemon.loop import heartbeat
from stillup.daemon.loop.heartbeat import STALL
from tests.asgi.event_loops import until

INTERVAL = 3.0
"""Seconds between two looks."""


class OwnTime:
    """A clock that goes on in the pauses between two looks alone, however long the machine stands still."""

    def __init__(self) -> None:
        self.now = 100.0
        self.over_due = 0.0
        """By how much the next looks come too late."""

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += max(0.0, seconds) + self.over_due


@pytest.fixture(autouse=True)
def own_time(monkeypatch: pytest.MonkeyPatch) -> OwnTime:
    """What the looks take for asyncio's time."""
    clock = OwnTime()
    monkeypatch.setattr(heartbeat, "asyncio", SimpleNamespace(get_running_loop=lambda: clock, sleep=clock.sleep))
    return clock


class Log:
    """What the tick has done, in order; what is to happen meanwhile; and whether what it looks at can be written to."""

    def __init__(self) -> None:
        self.done: list[HeartbeatsDue | str] = []
        self.meanwhile: list[Callable[[], None]] = []
        """Once each, in the next looks."""
        self.can_write = True

    def catch_up(self) -> None:
        self.done.append("caught up")
        if self.meanwhile:
            self.meanwhile.pop()()

    @property
    def looks(self) -> list[HeartbeatsDue]:
        return [one for one in self.done if isinstance(one, HeartbeatsDue)]

    async def until_looks(self, more: int) -> list[HeartbeatsDue]:
        """The next looks, as many."""
        before = len(self.looks)
        await until(lambda: len(self.looks) >= before + more)
        return self.looks[before : before + more]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        task = asyncio.get_running_loop().create_task(
            heartbeat.watch_heartbeats(lambda: INTERVAL, self.catch_up, self.done.append, lambda: self.can_write)
        )
        try:
            yield
        finally:
            task.cancel()


async def test_what_lies_unread_is_read_before_each_look() -> None:
    """And the silence ends when the reading begins. The first of a supervisor judges nobody; others are at ticks."""
    log = Log()
    with log.watched():
        await log.until_looks(3)
    assert log.done[:4:2] == ["caught up", "caught up"]
    assert log.looks[:3] == [
        HeartbeatsDue(100.0, late=True),
        HeartbeatsDue(102.0, late=False),
        HeartbeatsDue(105.0, late=False),
    ]


@pytest.mark.parametrize(("over_due", "is_late"), [(STALL, False), (STALL + 0.01, True)])
async def test_a_look_that_comes_late_is_late(own_time: OwnTime, over_due: float, is_late: bool) -> None:
    """After a stall of our own one look is late, and the next is not."""
    log = Log()
    with log.watched():
        await log.until_looks(2)
        own_time.over_due = over_due
        (late,) = await log.until_looks(1)
        own_time.over_due = 0.0
        (next_one,) = await log.until_looks(1)
    assert (late.late, next_one.late) == (is_late, False)


async def test_a_stall_within_a_look(own_time: OwnTime) -> None:
    """It makes the next one late: what workers have said meanwhile was not read by this one."""
    log = Log()
    with log.watched():
        await log.until_looks(2)

        def stall() -> None:
            own_time.now += INTERVAL + STALL + 0.01

        log.meanwhile.append(stall)
        assert [look.late for look in await log.until_looks(3)] == [False, True, False]


async def test_a_look_is_late_while_nothing_can_be_written() -> None:
    """The workers write to the same pipe: while it is full no silence means anything."""
    log = Log()
    with log.watched():
        await log.until_looks(1)
        log.can_write = False
        assert [look.late for look in await log.until_looks(2)] == [True, True]
        log.can_write = True
        assert [look.late for look in await log.until_looks(1)] == [False]
