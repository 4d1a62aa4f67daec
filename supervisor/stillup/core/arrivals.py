"""A worker's way into service: its process exists, it says hello, it is ready, it serves.

1. A worker of a new generation accepts when all workers of that are READY; one that is started in a generation that
   serves, or comes a worker at a time, accepts as soon as it is READY itself.
2. An order to leave that was given before the process existed is given again when it does.
3. What a health probe is answered is announced when it is another answer, no sooner than TELL_PAUSE seconds after the
   first one and between two: what is well a moment later is no news.
4. A worker that comes to serve while it is on its way out changes nothing.
"""

from __future__ import annotations

from typing import Final

from stillup.core import orders, rollout, shifting, slots
from stillup.core.commands import Kill, Terminate
from stillup.core.events import BecameReady, BeganServing, HelloSaid, ProbeAnswered, Spawned, WorkerBootFailed
from stillup.core.lifecycle import Step
from stillup.core.model import Generation, Worker
from stillup.core.states import GenerationState, WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.core.waiting import Unhealthy
from stillup.core.worker_settings import probe_path
from stillup.errors import Refused

TELL_PAUSE: Final = 1.0
"""Seconds."""
STATUSES: Final = range(100, 1000)
"""Those of HTTP (RFC 9110, 15)."""
_SHOWN_STATUSES: Final = frozenset(map(str, STATUSES))


def spawned(transition: Transition, event: Spawned) -> None:
    """Note which process a worker is.

    Raises:
        Refused: that is known, or it was not to be started yet.
    """
    worker = transition.started(event.serial)
    if worker.pid is not None:
        raise Refused(f"worker {worker.name} was spawned already", code="out-of-order")
    transition.put(replace(worker, pid=event.pid, started=event.started, birth=event.birth))
    if worker.state is WorkerState.STOPPING:
        transition.order(Terminate(worker.serial))
    elif worker.state is WorkerState.KILLED:
        transition.order(Kill(worker.serial))


def said_hello(transition: Transition, event: HelloSaid) -> None:
    """A worker was authenticated."""
    worker = transition.move(transition.worker(event.serial), Step.HELLO)
    transition.put(replace(worker, takes_sessions=event.takes_sessions))


def boot_failed(transition: Transition, event: WorkerBootFailed) -> None:
    """A worker has said why it cannot serve."""
    orders.fail(transition, transition.worker(event.serial), event.stage, event.message)


def probe_answered(transition: Transition, event: ProbeAnswered) -> None:
    """Keep what a worker's health probe was answered.

    Raises:
        Refused: it does not boot, or has no probe.
    """
    worker = transition.worker(event.serial)
    path = probe_path(transition.fleet.generations[worker.generation].release.settings)
    if worker.state is not WorkerState.BOOTING or not path:
        raise Refused(f"worker {worker.name} has nothing to probe", code="out-of-order")
    status = event.status if event.status in STATUSES else 0
    before = worker.unhealthy if worker.unhealthy is not None else Unhealthy(status, told_at=transition.now)
    unhealthy = replace(before, status=status)
    if status != before.told and transition.now - before.told_at >= TELL_PAUSE:
        unhealthy = Unhealthy(status, told=status, told_at=transition.now)
        transition.announce(
            "worker.unhealthy",
            worker=worker.name,
            pid=worker.pid,
            path=path,
            status=status or None,
            seconds=transition.now - worker.spawned,
        )
    transition.put(replace(worker, unhealthy=unhealthy))


def became_ready(transition: Transition, event: BecameReady) -> None:
    """A worker could serve; it is told to accept, now or with the others of its generation."""
    worker = transition.put(replace(transition.move(transition.worker(event.serial), Step.READY), unhealthy=None))
    generation = transition.fleet.generations[worker.generation]
    probe = _probe_seen(generation, event.probe)
    moving = transition.fleet.plan
    if generation.state is GenerationState.SERVING:
        orders.accept(transition, worker)
    elif moving is not None and moving.generation == generation.id:
        shifting.admit(transition, worker, probe)
    else:
        rollout.admit_if_ready(transition, generation, probe)


def _probe_seen(generation: Generation, said: str) -> str:
    """What a health probe saw, by what a worker says of it: of that the status counts, since viewers read it."""
    path, status = probe_path(generation.release.settings), said.rpartition(" ")[2]
    return f"{path} {status}" if path and status in _SHOWN_STATUSES else ""


def began_serving(transition: Transition, event: BeganServing) -> None:
    """A worker accepts."""
    worker = transition.move(transition.worker(event.serial), Step.SERVE)
    serves(transition, transition.put(replace(worker, heard=transition.now)))


def serves(transition: Transition, worker: Worker) -> None:
    """Go on from a worker that has come to serve, unless it drains by now."""
    if worker.state is not WorkerState.SERVING:
        return
    generation = transition.fleet.generations[worker.generation]
    if generation.state is GenerationState.ADMITTING:
        rollout.cut_over_if_serving(transition, generation)
    else:
        slots.serves(transition, worker)
