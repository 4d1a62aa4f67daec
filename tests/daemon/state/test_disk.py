"""Looks at a disk that may hang."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from stillup.daemon.state import disk
from stillup.daemon.state.disk import Disk
from tests.asgi.event_loops import until


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
    assert [str(resolved.release) for resolved in await asyncio.gather(*reloads)] == ["release"] * 50
