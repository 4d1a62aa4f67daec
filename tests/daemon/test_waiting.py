"""What a caller leaves behind who does not wait for his answer; and what a disk that hangs may hold."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from supervisor.core.model import Fleet
from supervisor.daemon import disk
from supervisor.daemon.disk import Disk
from supervisor.daemon.engine import Engine
from supervisor.daemon.handlers import Handlers
from supervisor.errors import Refused
from tests.asgi.running import until
from tests.daemon.engines import KEEPER


class _Request:
    """A request whose client leaves when it is told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.left.wait()
        return {"type": "http.disconnect"}


class _Call:
    def __init__(self) -> None:
        self.request = _Request()


async def test_who_leaves_while_he_waits_leaves_nothing() -> None:
    """Of a hundred callers who wait for what never comes and then leave, neither a watcher nor a task stays."""
    engine = Engine(Fleet(), KEEPER)
    handlers = Handlers.__new__(Handlers)  # waiting needs nothing else of it
    handlers._engine = engine
    calls = [_Call() for _ in range(100)]
    waiting = [asyncio.ensure_future(handlers._until(cast("Any", call), lambda _: False)) for call in calls]
    await until(lambda: len(engine._watchers) == 100)
    for call in calls:
        call.request.left.set()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, Refused) for end in ends)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert not engine._watchers


async def test_a_disk_that_hangs_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many reloads look at it, one does at a time, and the threads are there for others."""
    go, looking = threading.Event(), []

    def resolve(_: object) -> str:
        looking.append(threading.get_ident())
        go.wait(20)
        return "release"

    monkeypatch.setattr(disk, "resolve", resolve)
    looks = Disk(cast("Any", None))
    reloads = [asyncio.ensure_future(looks.resolve()) for _ in range(50)]
    await until(lambda: looking)
    assert await disk.in_thread(lambda: "another") == "another"
    assert len(looking) == 1
    go.set()
    assert [str(release) for release in await asyncio.gather(*reloads)] == ["release"] * 50
