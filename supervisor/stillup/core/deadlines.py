"""What is done when a timer fires.

1. A deadline that a worker has kept is refused when its timer fires, so no timer is ever cancelled.
2. A worker that is not READY in time, or does not accept in time, has failed. One that has not drained in time is sent
   SIGTERM; one that has not left on that in time, SIGKILL. A hook that has not ended in time likewise.
"""

from __future__ import annotations

from stillup.core import hooks, orders, rollout, service, slots, watching
from stillup.core.policy import Timer, TimerKind
from stillup.core.states import WorkerState
from stillup.core.transition import Transition
from stillup.errors import Refused


def passed(transition: Transition, timer: Timer) -> None:
    """Deal with a timer that has fired.

    Raises:
        Refused: what it was to see to is done.
    """
    if timer.kind is TimerKind.RESPAWN:
        slots.retry(transition, timer.of, timer.slot)
        return
    if timer.kind is TimerKind.STANDBY:
        rollout.end_standby(transition, timer.of)
        return
    if timer.kind is TimerKind.STOP:
        service.end_delay(transition)
        return
    if timer.kind is TimerKind.HOOK:
        hooks.overdue(transition, timer.of)
        return
    if timer.kind is TimerKind.HOOK_TERM:
        hooks.does_not_end(transition, timer.of)
        return
    if timer.kind is TimerKind.GATE:
        watching.look(transition, timer.of)
        return
    if timer.kind is TimerKind.LEADER:
        return  # what has come due ``core.leader`` sees after each decision
    worker = transition.worker(timer.of)
    policy, now = transition.fleet.policy, transition.now
    match timer.kind, worker.state:
        case TimerKind.BOOT, WorkerState.SPAWNED | WorkerState.BOOTING:
            # Without a process it waits for what it is to be forked from, which imports the app.
            stage = "hello" if worker.state is WorkerState.SPAWNED and worker.pid is not None else "boot"
            orders.fail(transition, worker, stage, f"not ready after {policy.boot_timeout:g} s (--boot-timeout)")
        case TimerKind.ADMIT, WorkerState.ACCEPTING if (left := worker.admitted + policy.admit_timeout - now) > 0:
            # It was told so once before, and has been paused since.
            transition.set_timer(TimerKind.ADMIT, worker.serial, left)
        case TimerKind.ADMIT, WorkerState.ACCEPTING:
            orders.fail(transition, worker, "accept", f"did not begin to accept within {policy.admit_timeout:g} s")
        case TimerKind.DRAIN, WorkerState.DRAINING if (left := orders.drain_left(transition, worker.drain)) > 0:
            # It has a stream, or had one until just now.
            transition.set_timer(TimerKind.DRAIN, worker.serial, left)
        case TimerKind.DRAIN, WorkerState.DRAINING:
            transition.announce(
                "worker.overdue",
                worker=worker.name,
                connections=dict(worker.figures.classes),
                held_up=worker.figures.threads != "",
                message=worker.figures.threads,
            )
            orders.terminate(transition, worker)
        case TimerKind.TERM, WorkerState.STOPPING:
            orders.kill(transition, worker)
        case _:
            raise Refused(f"'{timer.kind}' came late for {worker.name}", code="out-of-order")
