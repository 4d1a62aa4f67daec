"""Who reads the adoption queue: in which worker a connection goes on that a draining one gives away.

1. All workers that take requests read it, while one generation serves.
2. While two do, those of the one that is to stay read it, and those of the other only while none of these serves. So a
   connection crosses once a rollout, and not once for each worker that leaves.
3. Sessions are given where all who read it know them (``core.crossing``) when a drain begins, counted once a decision;
   one that is under way hears of nobody who comes later, and what is parked is for whoever comes.
4. Who starts to accept reads it until told otherwise, and so does who has lost its supervisor: a queue that nobody
   reads would keep its connections waiting.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeGuard

from stillup.core import plan
from stillup.core.commands import BeginDrain, BeginPause, Command, TellAdoption
from stillup.core.lifecycle import HOLDS_CONNECTIONS
from stillup.core.model import Fleet, Worker
from stillup.core.states import WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace

_READS: Final = frozenset({WorkerState.ACCEPTING, WorkerState.SERVING})


def adopters(fleet: Fleet) -> int:
    """How many workers that serve read it: none, one, or more, which is 2."""
    idle = _not_reading(fleet)
    # The latest first: this is asked for each of a thousand that leave, and those before them are leaving, too.
    serving = (one for one in reversed([*fleet.workers.values()]) if one.state is WorkerState.SERVING)
    return len(list(islice((one for one in serving if one.generation != idle), 2)))


def tell_changes(transition: Transition, before: Fleet) -> None:
    """Tell those that are to read it again, or no more, by what the fleet was before."""
    was, now = _not_reading(before), _not_reading(transition.fleet)
    if was is None and now is None:
        return
    for worker in transition.fleet.workers.values():
        if worker.state not in HOLDS_CONNECTIONS:
            continue
        known = before.workers.get(worker.serial)
        rests = worker.generation == now
        if rests is not (known is not None and known.state in HOLDS_CONNECTIONS and worker.generation == was):
            transition.order(TellAdoption(worker.serial, on=not rests))


def tell_who_comes_back(transition: Transition, worker: Worker) -> None:
    """Tell one that has lost its supervisor for a while that it is not to read the queue, if so it is."""
    if worker.generation == _not_reading(transition.fleet):
        transition.order(TellAdoption(worker.serial, on=False))


def _not_reading(fleet: Fleet) -> int | None:
    """The generation whose workers do not read it though they take requests; None: there is none."""
    rollout = fleet.plan
    if rollout is None or not rollout.state.shifts:
        return None
    comes = plan.coming_generation(fleet, rollout)
    if not any(plan.serves(worker) for worker in fleet.of(comes.id)):
        return None
    return plan.going_generation(rollout)


def settle(transition: Transition) -> None:
    """Have sessions given by those that begin to leave or pause, if all who read the queue then know them.

    Once a decision, by what the fleet has become: a thousand may leave in one.
    """
    if any(map(_gives, transition.commands)) and _all_take_sessions(transition.fleet):
        transition.commands = [_with_sessions(command) for command in transition.commands]


def _gives(command: Command) -> TypeGuard[BeginDrain | BeginPause]:
    """Whether it has a worker give its connections to those that stay."""
    return isinstance(command, BeginPause) or (isinstance(command, BeginDrain) and not command.final)


def _with_sessions(command: Command) -> Command:
    return replace(command, sessions=True) if _gives(command) else command


def _all_take_sessions(fleet: Fleet) -> bool:
    """Whether whoever reads it, now or once it is told to, knows sessions that go on."""
    idle = _not_reading(fleet)
    readers = [worker for worker in fleet.workers.values() if worker.state in _READS and worker.generation != idle]
    return bool(readers) and all(worker.takes_sessions for worker in readers)
