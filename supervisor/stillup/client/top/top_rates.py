"""How fast the counts of a service grow: processor time, requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from stillup.wire.api_shapes import Status, WorkerView

Key: TypeAlias = tuple[str, int | None]
"""A worker's name and pid: its slot may have another one later."""
WINDOW: Final = 3.0
"""Seconds that rates are of, at least, once as many have passed: a worker that answers tells its counts once a second,
so that those of two looks that are near each other have grown by none, one or two of its reports."""
APART: Final = 0.9
"""Seconds between two looks that are kept."""


class Rate(msgspec.Struct, frozen=True):
    """Of one process."""

    cpu: float
    """Processor time a second: 1.0 is a whole core."""
    requests: float = 0.0
    """Answered a second."""


Rates: TypeAlias = Mapping[Key, Rate]
"""Those of workers, and that of the supervisor under SUPERVISOR; a process that was seen once has none."""
SUPERVISOR: Final = ""
"""No worker is called so."""


def key_of(worker: WorkerView) -> Key:
    """Under which a worker's rates are."""
    return (worker.id, worker.pid)


def averages(status: Status) -> Rates:
    """Of each process since it was started."""
    found = {key: Rate(cpu / age, requests / age) for key, cpu, requests, age in _counts(status) if age > 0}
    if status.uptime > 0:
        found[SUPERVISOR, status.pid] = Rate(status.cpu / status.uptime)
    return found


class RateMeter:
    """Looks at a service one after the other; a rate is the difference of the newest and one that is older."""

    def __init__(self, window: float = WINDOW) -> None:
        """``window``: seconds that rates are of, if that is more than WINDOW."""
        self._window = max(window, WINDOW)
        self._looks: deque[tuple[float, dict[Key, tuple[float, int]]]] = deque()
        self._seen: float | None = None
        self._rates: Rates = {}

    def rates(self, status: Status, at: float) -> Rates:
        """Of a status that was answered at that time, by the monotonic clock; the same again for the same time."""
        if at == self._seen:
            return self._rates
        self._seen = at
        now = {key: (cpu, requests) for key, cpu, requests, _ in _counts(status)}
        now[SUPERVISOR, status.pid] = (status.cpu, 0)
        while len(self._looks) > 1 and self._looks[1][0] <= at - self._window:
            self._looks.popleft()
        if self._looks:
            self._rates = _between(*self._looks[0], at, now)
        if not self._looks or at - self._looks[-1][0] >= APART:
            self._looks.append((at, now))
        return self._rates


def _between(
    since: float, before: Mapping[Key, tuple[float, int]], at: float, now: Mapping[Key, tuple[float, int]]
) -> Rates:
    seconds = at - since
    if seconds <= 0:
        return {}
    return {
        key: Rate(max(0.0, cpu - before[key][0]) / seconds, max(0, requests - before[key][1]) / seconds)
        for key, (cpu, requests) in now.items()
        if key in before
    }


def _counts(status: Status) -> Iterator[tuple[Key, float, int, float]]:
    """Of each worker: its processor time, its requests and its age."""
    for generation in status.generations:
        for worker in generation.workers:
            yield key_of(worker), worker.cpu, worker.requests, worker.age
