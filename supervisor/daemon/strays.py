"""PID 1's duty: to reap the processes that were left to it."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

from supervisor.host.processes import reap_strays

logger = logging.getLogger("stillup")

PERIOD: Final = 2.0
"""Seconds that a stray may stay a zombie; it costs an entry in the process table, and nothing else."""


async def reap() -> None:
    """Reap strays now and then, if we are PID 1 of our container; else whoever is does. Runs until it is cancelled."""
    if os.getpid() != 1:
        return
    while True:
        await asyncio.sleep(PERIOD)
        if strays := reap_strays():
            logger.debug("reaped what was left to PID 1: %s", ", ".join(map(str, strays)))
