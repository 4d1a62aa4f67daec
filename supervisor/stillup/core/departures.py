"""A worker's end, and the loss of its channel.

1. A worker leaves the fleet by the end of its process alone, whatever was heard of it before.
2. The end of a worker before its generation serves is the end of the rollout.
3. The end of a worker of a generation that serves is a death unless it was expected (``Worker.exit_expected``). Its
   slot is filled first of all: what crashes serves until what was before it does.
4. A worker that serves and can be told nothing any more counts as failed. It drains when it comes back.
"""

from __future__ import annotations

from stillup.core import (
    cut_requests,
    orders,
    outcomes,
    probation,
    refused_sessions,
    rollout,
    scaling,
    service,
    shifting,
    slots,
    standby,
)
from stillup.core.events import ChannelLost, Exited, SpawnFailed
from stillup.core.failures import described
from stillup.core.lifecycle import APP_MAY_HAVE_STARTED, LEAVING, Step
from stillup.core.model import Failure, Generation, Worker
from stillup.core.states import HOW_UNKNOWN, GenerationState, WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace


def spawn_failed(transition: Transition, event: SpawnFailed) -> None:
    """A worker's process could not be started."""
    worker = transition.worker(event.serial)
    failure = worker.failure or Failure("spawn", event.message)
    gone(transition, worker, replace(failure, worker=worker.name, output=event.output))


def exited(transition: Transition, event: Exited) -> None:
    """A worker's process has ended."""
    worker = transition.worker(event.serial)
    failure = worker.failure or Failure("exit", event.how)
    gone(transition, worker, replace(failure, worker=worker.name, pid=worker.pid, output=event.output))


def channel_lost(transition: Transition, event: ChannelLost) -> None:
    """A worker was cut off, since it broke the protocol."""
    worker = transition.started(event.serial)
    if not worker.state.retiring:
        transition.announce("worker.cut-off", worker=worker.name, pid=worker.pid, why=event.message)
    if worker.state in APP_MAY_HAVE_STARTED:
        orders.fail(transition, worker, "exit", event.message)
    elif worker.state in (WorkerState.SERVING, WorkerState.PAUSED):
        failed = replace(worker, failure=Failure("channel", event.message))
        transition.move(failed, Step.DRAIN)
        orders.expect_drained(transition, worker)
        slots.refill(transition, worker.generation, died=failed)


def gone(transition: Transition, worker: Worker, failure: Failure, *, seen: bool = True) -> None:
    """A worker has left the fleet.

    Args:
        transition: what is changed.
        worker: as it last was.
        failure: how it ended.
        seen: whether it is known of what it ended.
    """
    worker = refused_sessions.tell(transition, cut_requests.tell(transition, worker))
    transition.remove(worker)
    generation = _with_figures_of(transition, worker)
    if _is_lost(generation, worker, failure):
        outcomes.note_death(transition, worker, failure)
        transition.announce("worker.lost", worker=worker.name, why=described(failure))
    match generation.state:
        case GenerationState.BOOTING | GenerationState.ADMITTING if standby.lost(transition, generation, worker):
            pass
        case GenerationState.BOOTING | GenerationState.ADMITTING:
            service.fail_rollout(transition, rollout.rollout_of(transition, generation), failure)
        case GenerationState.SHIFTING:
            shifting.lose(transition, generation, worker, failure, seen=seen)
        case GenerationState.STANDBY:
            if not worker.exit_expected:
                outcomes.tell_of_death(transition, worker, failure)
        case GenerationState.SERVING:
            _leaves_a_slot(transition, generation, worker, failure, seen=seen)
        case _:
            rollout.bury(transition, generation)
    service.end_if_empty(transition)


def _is_lost(generation: Generation, worker: Worker, failure: Failure) -> bool:
    """Whether a worker that was told to drain has crashed; of one that hung its generation says so if it serves."""
    ordered = generation.state in LEAVING or (worker.exit_expected and worker.hung is None)
    return ordered and worker.state is WorkerState.DRAINING and failure.message not in ("exited 0", HOW_UNKNOWN)


def _with_figures_of(transition: Transition, worker: Worker) -> Generation:
    """The worker's generation, which keeps the worker's figures of connections that crossed; so does the fleet."""
    fleet = transition.fleet
    transition.fleet = replace(fleet, crossed=fleet.crossed + worker.figures.crossed)
    generation = fleet.generations[worker.generation]
    return transition.put_generation(replace(generation, crossed=generation.crossed + worker.figures.crossed))


def _leaves_a_slot(
    transition: Transition, generation: Generation, worker: Worker, failure: Failure, *, seen: bool
) -> None:
    """Fill the slot that a worker of a generation that serves has left; a death may cost more than that."""
    if worker.exit_expected:
        if worker.hung is not None:
            outcomes.note_death(transition, worker, replace(failure, message=f"hung, and {failure.message}"))
        slots.refill(transition, generation.id, died=worker)
        return
    outcomes.tell_of_death(transition, worker, failure)
    scaling.fail(transition, worker, failure)
    slots.refill(transition, generation.id, died=worker)
    if seen and (target := probation.count_death(transition, generation, failure)) is not None:
        rollout.reload(transition, target.release, target.why, rolls_back=target.rollout)
