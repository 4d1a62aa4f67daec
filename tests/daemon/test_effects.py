"""Decisions that become system calls: what is waited for, and what is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from supervisor.core.commands import Spawn
from supervisor.core.events import Event, Exited, Spawned
from supervisor.core.model import Release
from supervisor.daemon import effects
from supervisor.daemon.console import Console
from supervisor.daemon.effects import LiveEffects

RELEASE = Release("main:app", "/bin/true", "/srv/app", label="app", fingerprint="as it was")


class Door:
    """Nobody comes to it."""

    def expect(self, *_: object) -> None: ...

    forget = expect


class NoFigures:
    """Nobody counts."""

    async def begin(self, *_: object) -> None: ...

    def belongs(self, *_: object) -> None: ...

    ended = belongs


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


async def test_a_dead_worker_is_replaced_before_its_code_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that hangs it starts all the same; that its code was changed is told when it is known, and once."""
    let = threading.Event()
    looks: list[str] = []

    def fingerprint(directory: str) -> str:
        looks.append(directory)
        assert let.wait(20)
        return "changed"

    monkeypatch.setattr(effects, "fingerprint", fingerprint)
    told, console = Told(), Console()
    live = LiveEffects(
        submit=told.submit,
        door=cast("Any", Door()),
        holder=cast("Any", None),
        console=console,
        feed=cast("Any", told),
        figures=cast("Any", NoFigures()),
        nonce=str,
        handoff_path="/run/x/handoff.sock",
        become=(),
        title="x",
        orphan_timeout=0.0,
    )
    try:
        for serial in (1, 2):
            live.perform(Spawn(serial, 7, serial, RELEASE, 1.0, 1.0, again=True))
        await told.until(lambda: sum(isinstance(event, Exited) for event in told.events) == 2)
        assert [event.serial for event in told.events if isinstance(event, Spawned)] == [1, 2]
        assert (looks, told.announced) == (["/srv/app"], [])
        let.set()
        await told.until(lambda: told.announced)
        live.perform(Spawn(3, 7, 1, RELEASE, 1.0, 1.0, again=True))
        await told.until(lambda: any(isinstance(event, Exited) and event.serial == 3 for event in told.events))
        assert [(kind, data["generation"]) for kind, data in told.announced] == [("release.changed", 7)]
    finally:
        let.set()
        live.close()
        console.close()
