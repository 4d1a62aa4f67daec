"""What a single worker is told: start, accept, drain, end.

1. Every order has a timer behind it, which ``core.deadlines`` answers: no worker stays in a state that it was to leave.
2. A worker that may hold connections is told to drain; any other is sent SIGTERM.
3. A worker that hangs hears no order: it is killed, once another serves in its place.
4. A worker that failed is ended, and stays in the fleet until its exit: that brings the end of its output.
"""

from __future__ import annotations

from stillup.core import adoption, listeners
from stillup.core.commands import BeginAccept, BeginDrain, BeginPause, HurryDrain, Kill, Spawn, TellCordon, Terminate
from stillup.core.crossing import PACKET_FOR_ONE, packet_limit
from stillup.core.drain import ClassTimeouts, DrainProgress, overdue_at, uniform
from stillup.core.lifecycle import APP_MAY_HAVE_STARTED, HOLDS_CONNECTIONS, IN_SERVICE, Step
from stillup.core.model import Failure, Fleet, Generation, Worker
from stillup.core.policy import Policy, TimerKind
from stillup.core.states import WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace


def enqueue(transition: Transition, generation: Generation, slot: int, deaths: int) -> None:
    """Have a worker started as soon as it may boot; ``deaths``: how many of its slot died young in a row before it."""
    serial = transition.fleet.last_worker + 1
    transition.fleet = replace(transition.fleet, last_worker=serial)
    transition.put(Worker(serial, generation.id, slot, WorkerState.QUEUED, spawned=transition.now, deaths=deaths))


def spawn(transition: Transition, queued: Worker) -> None:
    """Start a worker that is queued; its deadline begins now."""
    fleet, serial = transition.fleet, queued.serial
    generation = fleet.generations[queued.generation]
    handed = listeners.handed(fleet, generation, transition.now)
    transition.move(replace(queued, spawned=transition.now, listeners=handed), Step.BEGIN)
    transition.order(
        Spawn(
            serial,
            generation.id,
            queued.slot,
            generation.release,
            fleet.policy.boot_timeout,
            fleet.policy.drain_timeout,
            again=generation.state in IN_SERVICE or _rolls_back(fleet, generation),
            listeners=handed,
        )
    )
    transition.set_timer(TimerKind.BOOT, serial, fleet.policy.boot_timeout)


def accept(transition: Transition, worker: Worker) -> None:
    """Tell a worker to accept that is READY, or paused."""
    transition.move(worker, Step.ACCEPT)
    transition.order(BeginAccept(worker.serial))
    tell_cordon(transition, worker)
    expect_service(transition, worker)


def pause(transition: Transition, worker: Worker) -> None:
    """Tell a worker that serves to pause."""
    times = transition.fleet.policy.drain_times
    known = worker.drain.cut_told if worker.drain is not None else {}
    rest = replace(worker.figures, at_rest=False)
    paused = replace(worker, figures=rest, drain=DrainProgress(transition.now, times, cut_told=known))
    transition.move(paused, Step.PAUSE)
    transition.order(pausing(transition.fleet, worker))


def pausing(fleet: Fleet, worker: Worker) -> BeginPause:
    """The order to pause."""
    return BeginPause(worker.serial, fleet.policy.drain_times, _packet(fleet))


def tell_cordon(transition: Transition, worker: Worker) -> None:
    """Tell a worker that takes requests of the cordon, if there is one."""
    if transition.fleet.cordoned is not None:
        transition.order(TellCordon(worker.serial, on=True))


def expect_service(transition: Transition, worker: Worker) -> None:
    """Set the deadline by which a worker that was told to accept has to serve."""
    transition.put(replace(transition.worker(worker.serial), admitted=transition.now))
    transition.set_timer(TimerKind.ADMIT, worker.serial, transition.fleet.policy.admit_timeout)


def leave(transition: Transition, worker: Worker, *, final: bool = False) -> None:
    """Have a worker leave: by a drain if it may hold connections, else by SIGTERM; one that is queued is gone at once.

    Args:
        transition: what is changed.
        worker: nothing happens if it is leaving; but one that drains is told when its drain becomes a final one.
        final: whether nobody takes over what it holds.
    """
    drains_again = worker.state is WorkerState.DRAINING and final and worker.exit_expected
    if drains_again or worker.state in HOLDS_CONNECTIONS:
        transition.move(worker, Step.DRAIN)
        transition.order(drain(transition.fleet, worker, final=final))
        expect_drained(transition, worker, final=final)
    elif worker.state is WorkerState.QUEUED:
        transition.remove(worker, Step.ABORT)
    elif not worker.state.retiring:
        terminate(transition, worker)


def give_way(transition: Transition, worker: Worker) -> None:
    """Have a worker leave since another serves in its place: by a kill if it hangs and so would not hear an order."""
    if worker.hung is not None and worker.state is WorkerState.SERVING:
        kill(transition, worker)
    else:
        leave(transition, worker)


def drain(fleet: Fleet, worker: Worker, *, final: bool) -> BeginDrain:
    """The order to drain; where the adoption queue outlives the supervisor, a final one is to park in it.

    Not after an announcement: then nobody is expected to come back.
    """
    policy = fleet.policy
    times = _times(policy, final=final)
    if final and fleet.parks:
        return BeginDrain(worker.serial, times, final=False, packet=PACKET_FOR_ONE, park=True, sessions=True)
    return BeginDrain(worker.serial, times, final, _packet(fleet))


def expect_drained(transition: Transition, worker: Worker, *, final: bool = False) -> None:
    """Set the deadline by which a draining worker has to have ended, should it not keep its own."""
    times = _times(transition.fleet.policy, final=final)
    current = transition.worker(worker.serial)
    cut_told = current.drain.cut_told if current.drain is not None else {}
    progress = DrainProgress(transition.now, times, cut_told=cut_told)
    transition.put(replace(current, drain=progress))
    transition.set_timer(TimerKind.DRAIN, worker.serial, drain_left(transition, progress))


def drain_left(transition: Transition, progress: DrainProgress | None) -> float:
    """Seconds that a draining worker still has to end by itself, by what it has told so far."""
    if progress is None:
        return 0.0
    return overdue_at(progress) + transition.fleet.policy.grace - transition.now


def _times(policy: Policy, *, final: bool) -> ClassTimeouts:
    return uniform(policy.stop_timeout) if final else policy.drain_times


def hurry(transition: Transition, *, every: bool = False, evicted: Generation | None = None) -> None:
    """Have all workers that drain, or are paused, end endless answers now: event sources', or with ``every`` all.

    ``evicted``: the generation whose end is all that is waited for.
    """
    for worker in transition.fleet.workers.values():
        if worker.state in (WorkerState.DRAINING, WorkerState.PAUSED) and (
            evicted is None or worker.generation == evicted.id
        ):
            transition.order(HurryDrain(worker.serial, every))


def fail(transition: Transition, worker: Worker, stage: str, message: str) -> None:
    """Note why a worker cannot serve, and end it. What follows from that is decided at its exit."""
    fleet = transition.fleet
    if worker.state is WorkerState.ACCEPTING:
        # It may have connections by now: they are for the others.
        times = uniform(fleet.policy.grace)
        transition.order(BeginDrain(worker.serial, times, final=False, packet=_packet(fleet)))
    terminate(transition, worker)
    transition.put(replace(transition.worker(worker.serial), failure=Failure(stage, message)))


def terminate(transition: Transition, worker: Worker) -> None:
    """Send a worker SIGTERM. One whose app may have started has the time to shut it down."""
    policy = transition.fleet.policy
    transition.move(worker, Step.TERM)
    transition.order(Terminate(worker.serial))
    seconds = policy.shutdown_timeout if worker.state in APP_MAY_HAVE_STARTED else policy.grace
    transition.set_timer(TimerKind.TERM, worker.serial, seconds)


def kill(transition: Transition, worker: Worker) -> None:
    """Send a worker SIGKILL."""
    transition.move(worker, Step.KILL)
    transition.order(Kill(worker.serial))
    transition.announce("worker.killed", worker=worker.name, connections=dict(worker.figures.classes))


def _rolls_back(fleet: Fleet, generation: Generation) -> bool:
    return any(one.generation == generation.id and one.rolls_back is not None for one in fleet.rollouts)


def _packet(fleet: Fleet) -> int:
    """Connections that a draining worker may give away at a time."""
    return packet_limit(adoption.adopters(fleet))
