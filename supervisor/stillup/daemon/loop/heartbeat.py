"""The tick at which workers that send no heartbeat are found.

A stall of the supervisor itself (SIGSTOP, a paused machine, a blocked loop) must not count against workers:

1. Everything that lies unread in their channels is read before each tick, and silence is counted up to that moment.
2. After a tick that comes more than STALL late all clocks start anew.
3. So they do while the supervisor's stdout or stderr is full: workers write to the same, and wait for its reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from stillup.core.common_tick import until_tick
from stillup.core.events import HeartbeatsDue

STALL: Final = 2.0
"""Seconds over due from which on a tick is late."""


async def watch_heartbeats(
    interval: Callable[[], float],
    catch_up: Callable[[], None],
    submit: Callable[[HeartbeatsDue], None],
    can_write: Callable[[], bool],
) -> None:
    """Submit ``HeartbeatsDue`` at intervals; runs until it is cancelled.

    Args:
        interval: seconds between two looks, which are ticks of the clock (``core.common_tick``).
        catch_up: submits what workers have said and lies unread, or a part of it.
        submit: takes the event; before it came what ``catch_up`` has found.
        can_write: whether what the workers write to takes something now.
    """
    clock = asyncio.get_running_loop().time
    due: float | None = None
    while True:
        at = clock()
        late = due is None or at - due > STALL
        catch_up()
        submit(HeartbeatsDue(at, late=late or not can_write()))
        due = at + until_tick(at, interval())
        await asyncio.sleep(due - clock())
