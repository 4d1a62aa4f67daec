"""Which workers hang, by the heartbeats that they send from their event loops.

1. A worker that serves, of a generation that serves, hangs when nothing was heard of it for longer than
   ``Policy.hang_timeout`` seconds, and by as much longer as it may leave between two reports beyond
   SHORTEST_INTERVAL. One that does not serve yet, or drains, has deadlines of another kind.
2. It is replaced first, then ended: it is to be replaced (``core.slots``), and killed if it still hangs when its
   replacement serves, or another generation does. Until then it keeps its connections, since it might come back.
3. One that comes back before that hangs no longer, and drains in order. It is replaced all the same: what held it up
   for so long may do so again.
4. One that is paused hangs by the same rule. It is killed at once, since nobody is served by it, and not replaced.
5. A worker with nothing new to tell reports every ``report_interval`` seconds, as its release says, whatever the limit
   is by now. No event loop that was blocked for less than the limit makes a worker hang.
6. A silence of the supervisor's own counts for nothing. A worker's silence ends at ``at``, by which everything that was
   said had been read, and not now; and when the supervisor was late itself, all clocks start anew.
"""

from __future__ import annotations

from typing import Final

from stillup.core import orders, slots
from stillup.core.commands import DumpStacks
from stillup.core.lifecycle import IN_SERVICE
from stillup.core.model import Worker
from stillup.core.states import WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace

SHORTEST_INTERVAL: Final = 1.0
"""Seconds; of a worker with something to tell, too."""
LONGEST_INTERVAL: Final = 5.0
"""Seconds."""
OF_LIMIT: Final = 6
"""So many intervals make a limit, unless that asks for a shorter or longer one than there is."""


def report_interval(limit: float | None) -> float:
    """Seconds between two reports of a worker with nothing new to tell, and between two looks at who is silent."""
    if limit is None:
        return LONGEST_INTERVAL
    return min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, limit / OF_LIMIT))


def judge(transition: Transition, at: float, *, late: bool) -> None:
    """Find the workers that hang.

    Args:
        transition: what is changed.
        at: when the channels were read; seconds on the monotonic clock, not later than now.
        late: whether to judge none, and let all clocks start anew.
    """
    fleet, limit = transition.fleet, transition.fleet.policy.hang_timeout
    if limit is None:
        return
    limits = {
        one.id: limit + one.release.settings.report_interval - SHORTEST_INTERVAL for one in fleet.generations.values()
    }
    for generation in [one for one in fleet.generations.values() if one.state in IN_SERVICE]:
        for worker in fleet.of(generation.id):
            if worker.state is not WorkerState.SERVING or worker.hung is not None:
                continue
            if late or worker.heard is None:
                transition.put(replace(worker, heard=transition.now))
            elif at - worker.heard > limits[generation.id]:
                _hangs(transition, worker, worker.heard, at - worker.heard)
        # Only now: one that hangs and was to be replaced before goes before those that are merely to be replaced.
        slots.refill(transition, generation.id)
    for worker in fleet.workers.values():
        if worker.state is not WorkerState.PAUSED:
            continue
        if late or worker.heard is None:
            transition.put(replace(worker, heard=transition.now))
        elif at - worker.heard > limits[worker.generation]:
            _announce(transition, worker, at - worker.heard)
            orders.kill(transition, worker)


def hear(transition: Transition, worker: Worker) -> Worker:
    """The worker as it is now that it was heard; it is yet to be put into the fleet."""
    if worker.hung is not None and worker.state is WorkerState.SERVING:
        seconds = transition.now - worker.hung
        transition.announce("worker.recovered", worker=worker.name, pid=worker.pid, seconds=seconds)
    return replace(worker, heard=transition.now, hung=None)


def _hangs(transition: Transition, worker: Worker, since: float, seconds: float) -> None:
    reason, reason_since = worker.recycle, worker.recycle_since
    if not reason:
        reason, reason_since = f"no word for {seconds:.0f} s (--hang-timeout)", transition.now
    transition.put(replace(worker, hung=since, recycle=reason, recycle_since=reason_since))
    _announce(transition, worker, seconds)
    transition.order(DumpStacks(worker.serial))


def _announce(transition: Transition, worker: Worker, seconds: float) -> None:
    transition.announce(
        "worker.hung",
        worker=worker.name,
        pid=worker.pid,
        seconds=seconds,
        connections=dict(worker.figures.classes),
    )
