"""The tick by which silent workers are judged.

The supervisor's own stall (SIGSTOP, a paused machine, a loop that was kept) must judge nobody: what lies unread is
read first, a silence is counted up to when that began, and after a tick that comes late all clocks start anew. So they
do while the supervisor's stdout or stderr is full: the workers write to the same, and all of them wait for its reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from supervisor.core.events import BeatsDue

TICK: Final = 1.0
"""Seconds between two looks."""
STALL: Final = 2.0
"""Seconds over due from which on a tick is late."""


async def watch_beats(
    catch_up: Callable[[], None], submit: Callable[[BeatsDue], None], can_write: Callable[[], bool]
) -> None:
    """Submit ``BeatsDue`` about once a second; runs until it is cancelled.

    Args:
        catch_up: submits all that workers have said and that lies unread.
        submit: takes the event; before it came what ``catch_up`` has found.
        can_write: whether what the workers write to takes something now.
    """
    clock = asyncio.get_running_loop().time
    last: float | None = None
    while True:
        at = clock()
        late = last is None or at - last > TICK + STALL
        last = at
        catch_up()
        submit(BeatsDue(at, late=late or not can_write()))
        await asyncio.sleep(TICK)
