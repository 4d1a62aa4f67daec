"""Reaping orphans: what runs below the supervisor, and whose own parent has ended, is the supervisor's child.

So it is for PID 1, and for a subreaper (PR_SET_CHILD_SUBREAPER in prctl(2)), for which templates fork
(``host.forking``).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from stillup.core.common_tick import until_tick
from stillup.host.processes import MOST_REAPED, reap_unheld

logger = logging.getLogger("stillup")

PERIOD: Final = 5.0
"""Seconds that an orphan may stay a zombie, which costs an entry in the process table and nothing else."""


async def reap() -> None:
    """Reap orphans every PERIOD. Runs until it is cancelled."""
    clock = asyncio.get_running_loop().time
    while True:
        if reaped := reap_unheld():
            logger.debug("reaped what was left to us: %s", ", ".join(map(str, reaped)))
        # More than one look takes are taken by the next ones, with a turn of the loop for everybody else between them.
        await asyncio.sleep(until_tick(clock(), PERIOD) if len(reaped) < MOST_REAPED else 0)
