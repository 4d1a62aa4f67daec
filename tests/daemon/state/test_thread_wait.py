"""How long a thread is waited for that may never come back."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from stillup.daemon.state import writer_thread as module
from stillup.daemon.state.thread_wait import are_done
from stillup.daemon.state.writer_thread import SLOW, Writer


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_done_is_not_waited_for() -> None:
    """Nor is what ends while it is waited for, be it several things; and what does not is left as it is."""
    loop = asyncio.get_running_loop()
    one, other, never = loop.create_future(), loop.create_future(), loop.create_future()
    one.set_result(None)
    assert await are_done({one}, 0.0)
    both = asyncio.create_task(are_done({one, other}, 20.0))
    await turns(3)
    other.set_result(None)
    assert await both
    assert not await are_done({one, never}, 0.05)
    assert not never.done()


def stand_still(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have so much time pass at once, in which nothing runs."""
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + seconds)


async def test_a_machine_that_stands_still_is_no_disk_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing runs neither does the thread: a pause that is longer than all of the time is no reason."""
    go = threading.Event()
    writing = asyncio.get_running_loop().run_in_executor(None, go.wait, 20)
    waiting = asyncio.create_task(are_done({writing}, 10.0))
    await turns(3)
    stand_still(monkeypatch, 20.0)
    await turns(5)
    assert not waiting.done()
    go.set()
    assert await waiting


async def test_a_write_is_not_called_slow_for_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would refuse a request; that of a disk that hangs is."""
    monkeypatch.setattr(module, "PATIENCE", 10.0)
    writer, go = Writer("test"), threading.Event()

    def write() -> None:
        go.wait(20)

    writing = asyncio.create_task(writer.write(write))
    await turns(3)
    stand_still(monkeypatch, 20.0)
    await turns(5)
    go.set()
    assert await writing == ""
    go.clear()
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    assert await writer.write(write) == SLOW
    go.set()
    writer.close()
