"""Lines in the log while a stop waits: for whom, until when, and how it is hurried."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from stillup.core.lifecycle import ENDING
from stillup.core.model import Fleet
from stillup.core.states import ServiceState, WorkerState
from stillup.daemon.loop.engine import Engine
from stillup.wire.waiting_line import waiting_line

logger = logging.getLogger("stillup")

FIRST: Final = 1.5
"""Seconds until the first line: most stops are over by then, and workers then say once a second what they have."""
EVERY: Final = 3.0
"""Seconds between two lines."""


async def tell_progress(engine: Engine, *, had_terminal: bool) -> None:
    """Say what a stop waits for, once there is one. Runs until it is cancelled."""
    await engine.until(lambda fleet: fleet.state in ENDING)
    again = "Ctrl-C" if had_terminal else "SIGTERM"
    await asyncio.sleep(FIRST)
    while True:
        if said := progress(engine.fleet, asyncio.get_running_loop().time(), again):
            logger.info("%s", said)
        await asyncio.sleep(EVERY)


def progress(fleet: Fleet, now: float, again: str) -> str:
    """What is waited for; empty if nothing is. ``again``: what hurries it."""
    if fleet.state is ServiceState.STOP_DELAY:
        since = now - (fleet.cordoned if fleet.cordoned is not None else now)
        return f"stopping in {max(0.0, fleet.policy.stop_delay - since):.0f} s; {again} again to begin now"
    if not fleet.workers:
        hook = fleet.hook_under_way
        return f"waiting for the hook {hook.name} to end; {again} again to kill" if hook is not None else ""
    classes = {worker.name: worker.figures.classes for worker in fleet.workers.values()}
    begun = [one.drained_from for one in fleet.generations.values() if one.drained_from is not None]
    left = max(begun) + fleet.policy.stop_timeout - now if begun else None
    does = "to hurry" if any(one.state is WorkerState.DRAINING for one in fleet.workers.values()) else "to kill"
    return f"{waiting_line(classes, left)}; {again} again {does}"
