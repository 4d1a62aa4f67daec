"""Reaping orphans: PID 1 is the parent of every process of its container whose own parent has ended (wait(2))."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

from stillup.host.processes import reap_unheld

logger = logging.getLogger("stillup")

PERIOD: Final = 2.0
"""Seconds that an orphan may stay a zombie, which costs an entry in the process table and nothing else."""


async def reap() -> None:
    """Reap orphans every PERIOD, if this process is PID 1. Runs until it is cancelled."""
    if os.getpid() != 1:
        return
    while True:
        await asyncio.sleep(PERIOD)
        if reaped := reap_unheld():
            logger.debug("reaped what was left to PID 1: %s", ", ".join(map(str, reaped)))
