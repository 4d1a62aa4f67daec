"""What is said of a boot that takes too long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stillup.asgi.tracebacks import show_waits
from stillup.worker import boot_watch
from stillup.worker.boot_watch import BootWatch


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a dump of the threads is due, by the loop's clock: the last one, or none."""
    due: list[float] = []

    def later(seconds: float) -> None:
        due[:] = [asyncio.get_running_loop().time() + seconds]

    fake: Any = SimpleNamespace(dump_traceback_later=later, cancel_dump_traceback_later=due.clear)
    monkeypatch.setattr(boot_watch, "faulthandler", fake)
    monkeypatch.setattr(boot_watch, "BEAT", 0.02)
    return due


class Clock:
    """The loop's clock from now on: it goes on when it is told to, however long the machine stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self.now)

    async def tick(self) -> None:
        """Let 10 ms pass, and whatever is due then happen."""
        self.now += 0.01
        for _ in range(3):
            await asyncio.sleep(0)


async def app_that_waits(gate: asyncio.Event) -> None:
    async def deep() -> None:
        await gate.wait()

    await deep()


async def test_where_tasks_wait(capfd: pytest.CaptureFixture[str]) -> None:
    """Each line down to where a task waits is shown, and none of asyncio's."""
    gate = asyncio.Event()
    task = asyncio.create_task(app_that_waits(gate))
    await asyncio.sleep(0)
    show_waits()
    gate.set()
    await task
    shown = capfd.readouterr().err
    assert "A task of the app waits here" in shown
    assert shown.index("in app_that_waits") < shown.index("in deep")
    assert "await gate.wait()" in shown
    assert "asyncio" not in shown


async def test_a_loop_that_lives(
    dumps: list[float], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the loop lives no dump of the threads comes; near the end it is said where the app waits."""
    clock = Clock(monkeypatch)
    due = clock.now + 0.2
    gate = asyncio.Event()
    task = asyncio.create_task(app_that_waits(gate))
    with BootWatch(due, 0.2, shows_waits=True):
        while dumps:
            assert dumps[0] > clock.now
            await clock.tick()
    assert due - 0.05 < clock.now < due + 0.01
    assert "in deep" in capfd.readouterr().err
    gate.set()
    await task


async def test_a_loop_that_does_not(dumps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is held up the dump comes before the boot is ended; and none when the boot is done."""
    due = Clock(monkeypatch).now + 5.0
    with BootWatch(due, 5.0, shows_waits=False):
        assert due - 1.0 < dumps[0] < due
    assert not dumps


async def test_a_probe_that_is_answered(
    dumps: list[float], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an app that answers, though not well, it is not shown where its tasks wait."""
    clock = Clock(monkeypatch)
    gate = asyncio.Event()
    task = asyncio.create_task(app_that_waits(gate))
    with BootWatch(clock.now + 0.1, 0.1, shows_waits=False):
        while dumps:
            await clock.tick()
    assert capfd.readouterr().err == ""
    gate.set()
    await task
