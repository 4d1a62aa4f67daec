"""Orphans are looked for at ticks, and at once again while there are more than one look reaps."""

from __future__ import annotations

import asyncio

import pytest

from stillup.daemon.loop import reaper
from stillup.host.processes import MOST_REAPED
from tests.asgi.event_loops import until


async def test_many_orphans_wait_for_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two full looks and one that is not come in the same interval; the next one is due at a tick."""
    numbers = iter([MOST_REAPED, MOST_REAPED, MOST_REAPED - 1])
    looks: list[int] = []
    waits: list[float] = []

    def reap_unheld() -> list[int]:
        looks.append(next(numbers))
        return list(range(looks[-1]))

    def until_tick(now: float, period: float) -> float:
        waits.append(period)
        return 60.0

    monkeypatch.setattr(reaper, "reap_unheld", reap_unheld)
    monkeypatch.setattr(reaper, "until_tick", until_tick)
    task = asyncio.get_running_loop().create_task(reaper.reap())
    await until(lambda: bool(waits))
    task.cancel()
    assert looks == [MOST_REAPED, MOST_REAPED, MOST_REAPED - 1]
    assert waits == [reaper.PERIOD]
