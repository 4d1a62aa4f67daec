"""Keep-alive messages to the service manager's watchdog (sd_notify(3)), each after a turn of the engine.

A supervisor that is stuck is ended by the manager, and another takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

SHARE: Final = 1 / 3
"""Part of the time that the manager allows between two messages."""


async def feed(limit: float, turn: Callable[[], Awaitable[None]], alive: Callable[[], None]) -> None:
    """Tell the manager at least every ``limit`` seconds that the engine is alive. Runs until it is cancelled.

    Args:
        limit: what the manager allows.
        turn: returns when the engine has dealt with all that was submitted.
        alive: tells the manager.
    """
    while True:
        await turn()
        alive()
        await asyncio.sleep(limit * SHARE)
