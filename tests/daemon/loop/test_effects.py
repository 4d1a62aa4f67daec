"""Decisions that become system calls: what is waited for, and what is not."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, cast

import pytest

from stillup.core.commands import BeginLeading, Spawn
from stillup.core.events import Event, Exited, LeaderLockKept, Spawned
from stillup.core.model import Release
from stillup.core.worker_settings import WorkerSettings
from stillup.daemon.loop import effects
from stillup.daemon.loop.effects import LiveEffects
from stillup.daemon.state.console import Console
from stillup.daemon.workers.worker_program import worker_program
from stillup.host import descriptors
from stillup.host.processes import hold
from stillup.wire.handoff_messages import FromSupervisor, Lead
from tests.asgi.event_loops import until
from tests.host.lock_keeper import lock_kept
from tests.host.slow_sockets import slow_to_close

RELEASE = Release(
    "main:app",
    "/bin/true",
    "/srv/app",
    label="app",
    settings=WorkerSettings(template=False),  # for one, this process would become a subreaper
    fingerprint="as it was",
)


class NoAdmission:
    """Nobody comes in."""

    def expect(self, *_: object) -> None: ...

    forget = expect


class NoFigures:
    """Nobody counts."""

    async def begin(self, *_: object) -> None: ...

    def belongs(self, *_: object) -> None: ...

    ended = belongs


class NoHooks:
    """Has none."""

    def close(self) -> None: ...


class Told:
    """What was submitted, and what was announced."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.announced: list[tuple[str, Any]] = []
        self._news = asyncio.Event()

    def submit(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    def announce(self, kind: str, data: Any) -> None:
        self.announced.append((kind, data))
        self._news.set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._news.clear()
                await self._news.wait()


class NoChannels:
    """Nobody listens; what would have been said is kept, with what the descriptors beside it were."""

    def __init__(self) -> None:
        self.said: list[tuple[int, FromSupervisor, list[int]]] = []

    def tell(self, serial: int, message: FromSupervisor, fds: Sequence[int] = ()) -> None:
        self.said.append((serial, message, [os.fstat(fd).st_ino for fd in fds]))


@pytest.fixture
def console() -> Iterator[Console]:
    """Of nobody."""
    with closing(Console()) as console:
        yield console


def effects_on(told: Told, console: Console, channels: object = None) -> LiveEffects:
    """Effects without anybody to let in."""
    return LiveEffects(
        submit=told.submit,
        admission=cast("Any", NoAdmission()),
        channels=cast("Any", channels),
        custody=cast("Any", None),
        console=console,
        feed=cast("Any", told),
        figures=cast("Any", NoFigures()),
        hooks=cast("Any", NoHooks()),
        nonce=str,
        program=partial(worker_program, title="x", account=None, handoff_path="/run/x/handoff.sock"),
    )


async def test_a_leader_is_given_the_lock(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    """Another one each time: whoever has let go may have kept a way to the one before, and may not be a worker."""
    told, channels = Told(), NoChannels()
    live = effects_on(told, console, channels)
    with closing(live):
        live.perform(BeginLeading(1, 1))
        live.perform(BeginLeading(2, 2))
        (_, first, lock), (_, second, again) = channels.said
        assert (first, second) == (Lead(1), Lead(2))
        assert lock != again
        with lock_kept(live._leader_lock.fileno()):
            live.perform(BeginLeading(1, 3))
        assert channels.said[2][2] != again
        assert "holds the leader's lock, and is no worker" in caplog.text
        assert told.events == []


@pytest.mark.parametrize("ends", [False, True])
async def test_what_a_leader_has_put_into_its_lock(console: Console, *, ends: bool) -> None:
    """It may take long to close: neither the next order to lead nor the supervisor's end waits for it."""
    told, channels = Told(), NoChannels()
    live = effects_on(told, console, channels)
    with slow_to_close(inside=False) as slow, ExitStack() as stack:
        stack.callback(live.close)
        with socket.socket(fileno=descriptors.duplicate(live._leader_lock.fileno())) as its:
            its.bind("")  # to an abstract name, by which anybody may send
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anybody:
                anybody.connect(its.getsockname())
                descriptors.send(anybody, b"x", [slow.fileno()])
        slow.close()
        began = time.monotonic()
        if ends:
            stack.close()
        else:
            live.perform(BeginLeading(1, 1))
        assert time.monotonic() - began < 15  # half of what the close takes


async def test_somebody_takes_the_lock_first(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was told to lead is told once more, with another lock."""
    monkeypatch.setattr(effects, "LOCK_LOOK", 0.05)
    told, channels = Told(), NoChannels()
    live = effects_on(told, console, channels)
    with closing(live):
        live.perform(BeginLeading(1, 7))
        with lock_kept(live._leader_lock.fileno()):
            await until(lambda: len(channels.said) > 1)
        assert [(serial, message) for serial, message, _ in channels.said[:2]] == [(1, Lead(7))] * 2
        assert channels.said[0][2] != channels.said[1][2]


async def test_a_worker_that_keeps_the_lock(console: Console) -> None:
    """Is named, and another is given the lock all the same, which it takes when it is free; who has it, it may have."""
    told, channels = Told(), NoChannels()
    live = effects_on(told, console, channels)
    with closing(live):
        lock = live._leader_lock.fileno()
        with lock_kept(lock) as keeper:
            process = hold(keeper.pid)
            live.adopt(1, process, RELEASE)
            live.perform(BeginLeading(1, 1))
            assert told.events == []
            live.perform(BeginLeading(2, 2))
            assert told.events == [LeaderLockKept(keeper.pid)]
            assert [serial for serial, _, _ in channels.said] == [1, 2]
            keeper.kill()
            await told.until(lambda: any(isinstance(event, Exited) for event in told.events))


async def test_a_dead_worker_is_replaced_before_its_code_is_looked_at(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that hangs it starts all the same; that its code was changed is told when it is known, and once."""
    let = threading.Event()
    looks: list[str] = []

    def fingerprint(directory: str) -> str:
        looks.append(directory)
        assert let.wait(20)
        return "changed"

    monkeypatch.setattr(effects, "fingerprint", fingerprint)
    told = Told()
    live = effects_on(told, console)
    try:
        for serial in (1, 2):
            live.perform(Spawn(serial, 7, serial, RELEASE, 1.0, 1.0, again=True))
        await told.until(lambda: sum(isinstance(event, Exited) for event in told.events) == 2)
        assert [event.serial for event in told.events if isinstance(event, Spawned)] == [1, 2]
        await until(lambda: looks)  # a thread begins to, as late as it likes
        assert (looks, told.announced) == (["/srv/app"], [])
        let.set()
        await told.until(lambda: told.announced)
        live.perform(Spawn(3, 7, 1, RELEASE, 1.0, 1.0, again=True))
        await told.until(lambda: any(isinstance(event, Exited) and event.serial == 3 for event in told.events))
        assert [(kind, data["generation"]) for kind, data in told.announced] == [("release.changed", 7)]
    finally:
        let.set()
        live.close()
