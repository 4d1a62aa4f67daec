"""Proof for the service manager that the engine's loop turns: one that is stuck is ended, and another takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

SHARE: Final = 1 / 3
"""How much of the time that the manager allows passes between two words."""


async def feed(limit: float, turn: Callable[[], Awaitable[None]], alive: Callable[[], None]) -> None:
    """Say so again and again, each time after a turn of the engine; ``limit`` is in seconds."""
    while True:
        await turn()
        alive()
        await asyncio.sleep(limit * SHARE)
