"""What a supervisor makes of the fleet that another one left behind.

1. No command was carried out before the fleet that ordered it was on record. So the record is never behind what a
   worker was told; it may be behind what a worker did by itself, and each that lives says that when it comes back.
2. What had not accepted leaves: nobody but its supervisor could have told it to. A rollout that was booting is aborted;
   one that was cutting over goes on if all its workers come back, and is aborted when one of them ends. One that was
   shifting, watched, or going back, goes on from what lives.
3. A worker that should drain, or pause, and serves is told again, and one that should serve and is paused; so an order
   that was lost on the way is given a second time.
4. All clocks start anew, but that of a standby. Who was queued for its boot is so still.
5. A start that wants another number of workers supersedes a request to scale that is under way.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from stillup.core import (
    adoption,
    arrivals,
    departures,
    hang,
    leader,
    listener_orders,
    orders,
    respawn,
    rollout,
    scaling,
    slots,
    standby,
    watching,
)
from stillup.core.commands import BeginAccept, Kill, Terminate
from stillup.core.events import TookOver, WorkerResumed
from stillup.core.lifecycle import ENDING, HOLDS_CONNECTIONS, UNACCEPTED, Step
from stillup.core.model import Failure, Fleet, Worker
from stillup.core.policy import TimerKind
from stillup.core.states import GenerationState, ServiceState, WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused


def take_over(transition: Transition, event: TookOver) -> None:
    """Go on where the record ends."""
    wanted = transition.fleet.size
    if event.size is not None:
        transition.fleet = replace(transition.fleet, size=event.size)
    recorded = transition.fleet
    if recorded.state in ENDING:
        transition.move_service(Step.RECOVER)
        transition.fleet = replace(transition.fleet, exit_code=0, cordoned=None)
    transition.announce(
        "service.taken-over",
        generation=recorded.serving.id if recorded.serving is not None else None,
        workers=len(event.alive),
        died=sum(one.state is not WorkerState.QUEUED for one in recorded.workers.values()) - len(event.alive),
    )
    if event.size not in (None, wanted):
        scaling.abort(transition, "superseded")
    rollout.go_on(transition, event.alive)
    if event.size is not None:  # an abort goes back to what was wanted before
        transition.fleet = replace(transition.fleet, size=event.size)
    _account_for_workers(transition, recorded, event.alive)
    _restart_waits(transition)
    if transition.fleet.standby is not None:
        standby.wait(transition, transition.fleet.standby)
    watching.take_over(transition)
    rollout.begin_waiting(transition)
    leader.take_over(transition)


def resume(transition: Transition, event: WorkerResumed) -> None:
    """A worker has come back, and says whether it drains, whatever the record says.

    Raises:
        Refused: it was never told to accept.
    """
    heard = hang.hear(transition, transition.worker(event.serial))
    worker = transition.put(replace(heard, takes_sessions=event.takes_sessions))
    leader.come_back(transition, worker, leads=event.leads)
    beside = event.leads and transition.fleet.term.worker != worker.serial
    if beside and worker.state is WorkerState.SERVING and not event.draining:
        # Another supervisor told it, and no record says so: it lets go when it drains.
        orders.leave(transition, worker)
        slots.refill(transition, worker.generation)
        return
    if event.paused and worker.state in (WorkerState.SERVING, WorkerState.ACCEPTING):
        transition.order(BeginAccept(worker.serial))  # before it is told what it is to do while it serves
    if worker.state in HOLDS_CONNECTIONS and not event.draining:
        orders.tell_cordon(transition, worker)
        adoption.tell_who_comes_back(transition, worker)
        listener_orders.remind(transition, worker.serial)
    if transition.fleet.state is ServiceState.STOPPING and worker.state is WorkerState.DRAINING:
        transition.order(orders.drain(transition.fleet, worker, final=True))
        return
    match worker.state:
        case WorkerState.SERVING | WorkerState.ACCEPTING | WorkerState.PAUSED if event.draining:
            _drains_already(transition, worker)
        case WorkerState.SERVING | WorkerState.ACCEPTING if event.paused:
            pass  # it was told so just now
        case WorkerState.PAUSED if not event.paused:
            transition.order(orders.pausing(transition.fleet, worker))
        case WorkerState.ACCEPTING:
            arrivals.serves(transition, transition.move(worker, Step.SERVE))
        case WorkerState.DRAINING if not event.draining:
            transition.order(orders.drain(transition.fleet, worker, final=False))
        case state if state in UNACCEPTED:
            raise Refused(f"worker {worker.name} was not told to accept", code="out-of-order")


def _account_for_workers(transition: Transition, recorded: Fleet, alive: AbstractSet[int]) -> None:
    """Take those that have died out of the fleet, and set anew the deadlines of those that live."""
    for worker in recorded.workers.values():
        if worker.state is WorkerState.QUEUED:
            continue
        current = transition.worker(worker.serial)
        if worker.serial not in alive:
            failure = worker.failure or Failure("exit", "ended while no supervisor ran", worker.name, worker.pid)
            departures.gone(transition, current, failure, seen=False)
        elif current.state is worker.state:  # else it has just been given an order
            _remind(transition, current)


def _restart_waits(transition: Transition) -> None:
    """Let the slots that wait for their next worker wait anew, and fill those that are empty."""
    for generation in tuple(transition.fleet.generations.values()):
        vacancies = {
            slot: replace(vacancy, until=transition.now + respawn.delay(vacancy.deaths))
            for slot, vacancy in generation.vacancies.items()
        }
        transition.put_generation(replace(generation, vacancies=vacancies))
        for slot, vacancy in vacancies.items():
            transition.set_timer(TimerKind.RESPAWN, generation.id, respawn.delay(vacancy.deaths), slot=slot)
        slots.refill(transition, generation.id)


def _remind(transition: Transition, worker: Worker) -> None:
    """Set the deadline of what a living worker was ordered, and give again the orders that are signals."""
    match worker.state:
        case WorkerState.ACCEPTING:
            orders.expect_service(transition, worker)
        case WorkerState.SERVING if transition.fleet.policy.hang_timeout is None:
            # Nobody is judged by silence; so one that never comes back would hold a plan up for ever.
            transition.put(replace(worker, heard=transition.now))
        case WorkerState.DRAINING:
            orders.expect_drained(transition, worker)
        case WorkerState.STOPPING:
            transition.order(Terminate(worker.serial))
            transition.set_timer(TimerKind.TERM, worker.serial, transition.fleet.policy.shutdown_timeout)
        case WorkerState.KILLED:
            transition.order(Kill(worker.serial))
        case state if state in UNACCEPTED:
            orders.terminate(transition, worker)  # an order: its end is no death


def _drains_already(transition: Transition, worker: Worker) -> None:
    """Go on from a worker that drains though it was not told to: it had lost its supervisor for too long."""
    if transition.fleet.generations[worker.generation].state is GenerationState.ADMITTING:
        orders.fail(transition, worker, "accept", "drains already")
        return
    transition.move(worker, Step.DRAIN)
    orders.expect_drained(transition, worker)
    slots.refill(transition, worker.generation)
