"""Waiting for what a thread or a client does, though not for ever: a disk may hang.

A machine that stands still, or a supervisor that is stopped, keeps the thread as long as us. So the time is waited for
in parts: a pause takes one of them, however long it is, and the disk is not blamed for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

PARTS: Final = 10
"""In so many parts a wait is divided; a pause in it lengthens it by no more than one of them."""


async def are_done(works: Collection[asyncio.Future[Any]], seconds: float) -> bool:
    """Whether all are done, at the latest after so many seconds in which our loop ran."""
    left: Collection[asyncio.Future[Any]] = works
    for _ in range(PARTS):
        _, left = await asyncio.wait(left, timeout=seconds / PARTS)
        if not left:
            return True
    return False
