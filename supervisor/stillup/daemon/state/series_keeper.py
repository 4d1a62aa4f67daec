"""Keeps the last 15 minutes of the service's figures, in memory: a point every 5 s.

They are gone with this program, and begin anew with the next. What is to outlive that asks ``/metrics``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

from stillup.core.common_tick import until_tick
from stillup.core.model import Fleet
from stillup.core.series import PERIOD, SPAN, Series
from stillup.daemon.state.figures_store import Figures
from stillup.errors import Refused
from stillup.wire import series_view
from stillup.wire.series_view import SeriesView


class SeriesKeeper:
    """Looks at the figures and the fleet; ``run`` has to run."""

    def __init__(self, figures: Figures, fleet: Callable[[], Fleet]) -> None:
        self._figures = figures
        self._fleet = fleet
        self._series = Series()

    async def run(self) -> None:
        """Add a point every 5 s. Runs until it is cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(Refused):  # which the log has said; the next interval is longer
                await self._look()
            await asyncio.sleep(until_tick(clock(), PERIOD))

    async def _look(self) -> None:
        totals = await self._figures.totals()
        now = asyncio.get_running_loop().time()
        self._series.add(series_view.request_totals(totals.service, totals.lag, now), self._fleet())

    def view(self) -> SeriesView:
        """What is kept."""
        now = asyncio.get_running_loop().time()
        return series_view.series(self._series.since(now - SPAN), self._fleet(), now, datetime.now(UTC))
