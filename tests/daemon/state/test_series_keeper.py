"""Who keeps the last minutes looks every few seconds, and goes on when the figures cannot be read."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from stillup.core.model import Fleet
from stillup.core.policy import Policy
from stillup.daemon.state import series_keeper as module
from stillup.daemon.state.figure_files import Totals
from stillup.daemon.state.figures_store import Figures
from stillup.daemon.state.series_keeper import SeriesKeeper
from stillup.errors import Refused
from stillup.wire import figure_cells
from tests.asgi.event_loops import until


class CountingFigures:
    """Figures that grow by a request with each look, and cannot be read at every third."""

    def __init__(self) -> None:
        self.looks = 0

    async def totals(self) -> Totals:
        self.looks += 1
        if self.looks % 3 == 0:
            raise Refused("a disk hangs", code="unavailable")
        cells = [0] * figure_cells.CELLS
        for _ in range(self.looks):
            figure_cells.answers("2xx").observe(cells, 0.002)
        return Totals(cells, [], 0)


async def test_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that failed makes the next interval longer, and loses no request."""
    monkeypatch.setattr(module, "PERIOD", 0.01)
    figures, fleet = CountingFigures(), Fleet(policy=Policy(), size=1)
    keeper = SeriesKeeper(cast("Figures", figures), lambda: fleet)
    running = asyncio.create_task(keeper.run())
    await until(lambda: figures.looks >= 6)
    running.cancel()
    points = keeper.view().points
    assert [round(one.requests * one.seconds) for one in points][:3] == [1, 2, 1]
    assert all(one.seconds > 0.004 for one in points), "half a period is waited for at least"
