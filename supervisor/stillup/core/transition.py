"""One transition of the fleet, in the making: the fleet as it becomes, and the commands for it, in their order.

1. ``step`` makes one ``Transition`` for each event. The modules of decisions are functions that change it in place.
2. A worker, generation, rollout, request to scale, hook, or the service changes its state by a method here, and only
   by a step that its machine's table has (``core.lifecycle``).
3. A decision that raises ``Refused`` leaves no trace: ``step`` drops the transition.
"""

from __future__ import annotations

import msgspec

from stillup.core.commands import Announce, Command, SetTimer
from stillup.core.lifecycle import GENERATION, HOOK, ROLLOUT, SCALING, SERVICE, WORKER, Step, after
from stillup.core.model import Fleet, Generation, Hook, Rollout, Scaling, Worker
from stillup.core.policy import Timer, TimerKind
from stillup.core.states import WorkerState
from stillup.core.values import replace
from stillup.errors import Refused


class Transition(msgspec.Struct):
    """What all decisions about one event change."""

    fleet: Fleet
    now: float
    """Seconds on the monotonic clock."""
    commands: list[Command] = msgspec.field(default_factory=list)

    def worker(self, serial: int) -> Worker:
        """The worker of that serial.

        Raises:
            Refused: there is none.
        """
        try:
            return self.fleet.workers[serial]
        except KeyError:
            raise Refused(f"no worker with serial {serial}", code="out-of-order") from None

    def started(self, serial: int) -> Worker:
        """The worker of that serial, of which something may be heard.

        Raises:
            Refused: there is none, or it is queued.
        """
        worker = self.worker(serial)
        if worker.state is WorkerState.QUEUED:
            raise Refused(f"worker {worker.name} is not to be started yet", code="out-of-order")
        return worker

    def put(self, worker: Worker) -> Worker:
        """Put a worker into the fleet, or another value of one that is in it."""
        self.fleet = self.fleet.with_worker(worker)
        return worker

    def move(self, worker: Worker, taken: Step) -> Worker:
        """Put a worker into the fleet as it is after a step."""
        return self.put(replace(worker, state=after(WORKER, worker.state, taken)))

    def remove(self, worker: Worker, taken: Step = Step.EXIT) -> None:
        """Take a worker out of the fleet by its last step: its process has ended, or there was none."""
        after(WORKER, worker.state, taken)
        self.fleet = self.fleet.without_worker(worker.serial)

    def put_generation(self, generation: Generation) -> Generation:
        """Put a generation into the fleet, or another value of one that is in it."""
        self.fleet = self.fleet.with_generation(generation)
        return generation

    def move_generation(self, generation: Generation, taken: Step) -> Generation:
        """Put a generation into the fleet as it is after a step."""
        return self.put_generation(replace(generation, state=after(GENERATION, generation.state, taken)))

    def put_rollout(self, rollout: Rollout) -> Rollout:
        """Put a rollout into the fleet, or another value of one that is in it."""
        self.fleet = self.fleet.with_rollout(rollout)
        return rollout

    def move_rollout(self, rollout: Rollout, taken: Step) -> Rollout:
        """Put a rollout into the fleet as it is after a step."""
        return self.put_rollout(replace(rollout, state=after(ROLLOUT, rollout.state, taken)))

    def move_scaling(self, scaling: Scaling, taken: Step) -> None:
        """Put a request to scale into the fleet as it is after a step."""
        self.fleet = self.fleet.with_scaling(replace(scaling, state=after(SCALING, scaling.state, taken)))

    def move_hook(self, hook: Hook, taken: Step) -> Hook:
        """Put a hook into the fleet as it is after a step."""
        moved = replace(hook, state=after(HOOK, hook.state, taken))
        self.fleet = self.fleet.with_hook(moved)
        return moved

    def move_service(self, taken: Step) -> None:
        """Let the service take a step."""
        self.fleet = replace(self.fleet, state=after(SERVICE, self.fleet.state, taken))

    def order(self, command: Command) -> None:
        """Add a command to those that were given."""
        self.commands.append(command)

    def set_timer(self, kind: TimerKind, of: int, seconds: float, *, slot: int = 0) -> None:
        """Have a timer fire in so many seconds; ``of`` and ``slot`` as in ``Timer``."""
        self.order(SetTimer(Timer(kind, of, slot), self.now + seconds))

    def announce(self, kind: str, **data: object) -> None:
        """Put a line on the feed."""
        self.order(Announce(kind, data))
