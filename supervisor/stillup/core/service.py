"""The service as a whole: its cordon, its stop, and the replacement of the supervisor's program.

1. A stop ends every generation by a final drain, and the supervisor with its last worker. Nothing takes it back. It
   may be announced first: as by a cordon, while everything is served on (``Policy.stop_delay``).
2. Asked again by somebody who insists, a stop ends at once what still drains; asked once more, it kills. One that is
   hurried from its beginning on kills nobody, either: an app that has started, or may have, shuts down first.
3. A cordon changes what those are told who send clients, and nothing else. A stop that follows is final.
4. The program is replaced only while nothing is under way that this one alone could go on with.
"""

from __future__ import annotations

from stillup.core import hooks, orders, rollout, scaling
from stillup.core.commands import BeginDrain, CloseListeners, Exit, LeaveStore, Reexec, TellCordon
from stillup.core.drain import uniform
from stillup.core.events import StopAsked
from stillup.core.lifecycle import COMING, ENDING, HOLDS_CONNECTIONS, Step
from stillup.core.model import Failure, Rollout
from stillup.core.policy import TimerKind
from stillup.core.states import RolloutState, ServiceState, WorkerState
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused, Unchanged


def stop(transition: Transition, event: StopAsked) -> None:
    """End the service, after its announcement if there is time for one; one that is stopping hurries if asked to."""
    match transition.fleet.state:
        case ServiceState.STOPPING:
            if event.insist or event.now:
                _hurry(transition, event.why, kill=True)
            return
        case ServiceState.STOP_DELAY if not (event.insist or event.now or event.at_once):
            return
        case ServiceState.SERVING if not (event.at_once or event.now) and (left := _delay_left(transition)) > 0:
            _announce_stop(transition, event.why, left)
            return
    begin_stop(transition, event.why)
    if event.now:
        _hurry(transition, event.why, kill=False)


def _delay_left(transition: Transition) -> float:
    """Seconds that are left of a stop's delay; the time since a cordon counts."""
    fleet = transition.fleet
    return fleet.policy.stop_delay - (transition.now - fleet.cordoned if fleet.cordoned is not None else 0.0)


def _announce_stop(transition: Transition, why: str, seconds: float) -> None:
    """Have no new clients sent, serve those that come all the same, and begin the stop when its delay is over."""
    transition.move_service(Step.DELAY)
    transition.announce("service.stop-delayed", why=why, seconds=seconds)
    if transition.fleet.pending is not None:
        rollout.abort(transition, transition.fleet.pending, reason="stopping")
    scaling.abort(transition, "stopping")
    if transition.fleet.cordoned is None:
        _set_cordon(transition, on=True)
    _leave_store(transition)
    transition.set_timer(TimerKind.STOP, 0, seconds)


def end_delay(transition: Transition) -> None:
    """Begin the stop whose delay is over.

    Raises:
        Refused: it has begun, or is off.
    """
    if transition.fleet.state is not ServiceState.STOP_DELAY:
        raise Refused("no stop waits for the end of its delay", code="out-of-order")
    begin_stop(transition, "--stop-delay is over")


def begin_stop(transition: Transition, why: str) -> None:
    """Close the listeners, and end every generation."""
    transition.move_service(Step.STOP)
    transition.announce("service.stopping", why=why)
    if transition.fleet.pending is not None:
        rollout.abort(transition, transition.fleet.pending, reason="stopping")
    rollout.end_plan(transition)
    scaling.abort(transition, "stopping")
    _leave_store(transition)
    transition.order(CloseListeners())
    hooks.end_all(transition, "stopping")
    for generation in tuple(transition.fleet.generations.values()):
        rollout.retire(transition, generation, final=True)
    end_if_empty(transition)


def _leave_store(transition: Transition) -> None:
    """Nobody comes back after a stop that was announced: who connects after it is to be refused."""
    if transition.fleet.policy.parks and not transition.fleet.parks:
        transition.order(LeaveStore())


def cordon(transition: Transition, why: str, *, on: bool) -> None:
    """Have no new clients sent, or have them sent again; what comes is served in either case.

    Raises:
        Unchanged: it is so.
        Refused: ``stopping``: nothing is to be sent any more, whatever is asked.
    """
    fleet = transition.fleet
    if fleet.state in ENDING:
        raise Refused("the service is stopping; a start ends its cordon", code="stopping")
    if on is (fleet.cordoned is not None):
        raise Unchanged(f"the service {'is cordoned already' if on else 'is not cordoned'}")
    if on:
        transition.announce("service.cordoned", why=why)
    else:
        transition.announce("service.uncordoned", why=why)
    _set_cordon(transition, on=on)


def _set_cordon(transition: Transition, *, on: bool) -> None:
    transition.fleet = replace(transition.fleet, cordoned=transition.now if on else None)
    for worker in transition.fleet.workers.values():
        if worker.state in HOLDS_CONNECTIONS:
            transition.order(TellCordon(worker.serial, on=on))


def fail_rollout(transition: Transition, pending: Rollout, failure: Failure) -> None:
    """Abort a rollout that has failed; if it is the first one, the service ends unless it keeps trying."""
    if transition.fleet.state is ServiceState.STARTING and not transition.fleet.policy.keep_trying:
        rollout.settle_aborted(transition, pending, reason=failure.stage, failure=failure)
        transition.fleet = replace(transition.fleet, exit_code=1)
        begin_stop(transition, f"generation {pending.generation} could not start")
    else:
        rollout.abort(transition, pending, reason=failure.stage, failure=failure)


def end_if_empty(transition: Transition) -> None:
    """End the supervisor once it is stopping, and the last worker has gone, and what was run beside them."""
    fleet = transition.fleet
    if fleet.state is ServiceState.STOPPING and not fleet.workers and fleet.hook_under_way is None:
        transition.move_service(Step.END)
        transition.announce("service.stopped", code=transition.fleet.exit_code)
        transition.order(Exit(transition.fleet.exit_code))


def lose_parking(transition: Transition) -> None:
    """Know that the adoption queue ends with the supervisor: nothing can be parked in it at a stop."""
    policy = replace(transition.fleet.policy, parks=False)
    transition.fleet = replace(transition.fleet, policy=policy)


def replace_program(transition: Transition) -> None:
    """Let the supervisor's program be replaced.

    Raises:
        Refused: something is under way.
    """
    fleet = transition.fleet
    if fleet.state is not ServiceState.SERVING:
        raise Refused(f"the service is {fleet.state}: its program is not replaced now", code="out-of-order")
    pending = fleet.pending
    if pending is not None and pending.state is not RolloutState.WAITING and not pending.state.shifts:
        raise Refused("a rollout is under way; try again when it is settled", code="rollout-in-progress")
    workers = fleet.workers.values()
    coming = [worker.name for worker in workers if worker.state in COMING]
    if coming:
        raise Refused(f"worker {coming[0]} is being started; try again when it serves", code="out-of-order")
    if (hook := fleet.hook_under_way) is not None:
        message = f"the hook {hook.name} runs, and only this program hears it; try again when it has ended"
        raise Refused(message, code="out-of-order")
    transition.announce("supervisor.reexec")
    transition.order(Reexec())


def _hurry(transition: Transition, why: str, *, kill: bool) -> None:
    """End at once what still drains; ``kill``: and kill what was told to end before."""
    transition.announce("service.hurried", why=why)
    if kill:
        hooks.kill(transition)
    for worker in tuple(transition.fleet.workers.values()):
        if worker.state is WorkerState.DRAINING:
            transition.order(BeginDrain(worker.serial, uniform(0.0), final=True))
            orders.terminate(transition, worker)
        elif kill and worker.state is WorkerState.STOPPING:
            orders.kill(transition, worker)
