"""What is put into a copy of stillup so that one of its processes stands still at a named point of a rollout.

The copy calls ``reached`` at each point. Where that is the point that is armed, the process says so in a file and stops
itself with SIGSTOP, once: whoever waits for the file may do anything to it, or to another, and let it go on.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
ARMED = "armed"
"""The file that holds the name of the point that is waited for."""
REACHED = "reached"
"""The file that says which process stands still, and which of its descriptors it has given away."""


def reached(*points: str, given: Iterable[int] = ()) -> None:
    """Stand still if one of these is the point that is armed."""
    try:
        armed = (HERE / ARMED).read_text()
    except FileNotFoundError:
        return
    if armed not in points:
        return
    mine = HERE / f"{REACHED}.{os.getpid()}"
    try:
        os.rename(HERE / ARMED, mine)
    except FileNotFoundError:
        return  # another process was there first
    mine.write_text(json.dumps({"pid": os.getpid(), "given": list(given)}))
    os.rename(mine, HERE / REACHED)
    # To this thread: of one that is sent to the process, another might be the first to know.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def decided(commands: Iterable[object]) -> None:
    """The supervisor has written down what it is about to perform: a point each for what a rollout is made of."""
    names = {type(command).__name__ for command in commands}
    reached(*(point for name, point in DECISIONS.items() if name in names))


DECISIONS = {"Spawn": "asked", "BeginAccept": "admitting", "BeginDrain": "cutting-over"}
"""The commands of the core that a rollout is made of, and the points at which they are about to be performed."""
