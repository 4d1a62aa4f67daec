"""One decision in the making: the fleet as it becomes, the commands as they gather, and the moves of single workers."""

from __future__ import annotations

from dataclasses import replace

from supervisor.core.commands import Accept, Announce, BeginDrain, Command, Kill, SetTimer, Spawn, Terminate
from supervisor.core.crossing import PACKET_FOR_ONE, packet_limit
from supervisor.core.events import Timer, TimerKind
from supervisor.core.lifecycle import GENERATION, WORKER, Step, after
from supervisor.core.model import Failure, Fleet, Generation, GenerationState, Worker, WorkerState
from supervisor.errors import Refused


class Turn:
    """What the decisions of ``core.rollout`` are made of."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self.fleet = fleet
        self.now = now
        self.commands: list[Command] = []

    def worker(self, serial: int) -> Worker:
        try:
            return self.fleet.workers[serial]
        except KeyError:
            raise Refused(f"no worker with serial {serial}", code="out-of-order") from None

    def put(self, worker: Worker) -> Worker:
        self.fleet = self.fleet.with_worker(worker)
        return worker

    def move(self, worker: Worker, taken: Step) -> Worker:
        return self.put(replace(worker, state=after(WORKER, worker.state, taken)))

    def move_generation(self, generation: Generation, taken: Step) -> None:
        self.fleet = self.fleet.with_generation(replace(generation, state=after(GENERATION, generation.state, taken)))

    def timer_in(self, seconds: float, kind: TimerKind, serial: int) -> None:
        self.commands.append(SetTimer(Timer(kind, serial), self.now + seconds))

    def drain_timer(self, worker: Worker) -> None:
        """See to it that a drain ends, should the worker not keep its own deadline."""
        self.timer_in(self.fleet.policy.drain_timeout + self.fleet.policy.grace, TimerKind.DRAIN, worker.serial)

    def announce(self, kind: str, **data: object) -> None:
        self.commands.append(Announce(kind, data))

    def spawn(self, generation: Generation, slot: int, deaths: int) -> None:
        serial = self.fleet.last_worker + 1
        worker = Worker(serial, generation.id, slot, WorkerState.SPAWNED, spawned=self.now, deaths=deaths)
        self.fleet = replace(self.fleet, last_worker=serial).with_worker(worker)
        policy = self.fleet.policy
        self.commands.append(
            Spawn(
                serial,
                generation.id,
                slot,
                generation.release,
                policy.boot_timeout,
                policy.drain_timeout,
                again=generation.state is GenerationState.SERVING or self.rolls_back(generation),
            )
        )
        self.timer_in(policy.boot_timeout, TimerKind.BOOT, serial)

    def rolls_back(self, generation: Generation) -> bool:
        return any(one.generation == generation.id and one.rolls_back is not None for one in self.fleet.rollouts)

    def accept(self, worker: Worker) -> None:
        self.move(worker, Step.ACCEPT)
        self.commands.append(Accept(worker.serial))
        self.timer_in(self.fleet.policy.admit_timeout, TimerKind.ADMIT, worker.serial)

    def takers(self) -> int:
        """How many workers take connections now."""
        return sum(worker.state is WorkerState.SERVING for worker in self.fleet.workers.values())

    def leave(self, worker: Worker, *, final: bool = False) -> None:
        """Send a worker on its way: by a drain if it may hold connections, else by SIGTERM."""
        again = worker.state is WorkerState.DRAINING and final and worker.failure is None
        if again or worker.state in (WorkerState.ACCEPTING, WorkerState.SERVING):
            self.move(worker, Step.DRAIN)
            self.commands.append(self.drain(worker, final=final))
            self.drain_timer(worker)
        elif not worker.state.retiring:
            self.terminate(worker)

    def drain(self, worker: Worker, *, final: bool) -> BeginDrain:
        """The order to drain; where the queue outlives us, a final one is to park in it."""
        policy = self.fleet.policy
        if final and policy.parks:
            return BeginDrain(worker.serial, policy.drain_timeout, final=False, packet=PACKET_FOR_ONE, park=True)
        return BeginDrain(worker.serial, policy.drain_timeout, final, packet_limit(self.takers()))

    def relieved(self, worker: Worker) -> None:
        """Send away a worker in whose place another serves: in order, unless it hangs, and so hears no order."""
        if worker.hung is not None and worker.state is WorkerState.SERVING:
            self.kill(worker)
        else:
            self.leave(worker)

    def fail(self, worker: Worker, stage: str, message: str) -> None:
        """Note why a worker cannot serve and end it; its exit brings its last words, and only then the verdict."""
        policy = self.fleet.policy
        if worker.state is WorkerState.ACCEPTING:
            # It may have connections by now: they are for the others.
            packet = packet_limit(self.takers())
            self.commands.append(BeginDrain(worker.serial, policy.grace, final=False, packet=packet))
        self.terminate(worker)
        self.put(replace(self.worker(worker.serial), failure=Failure(stage, message)))

    def terminate(self, worker: Worker) -> None:
        policy = self.fleet.policy
        booted = worker.state in (WorkerState.BOOTING, WorkerState.READY, WorkerState.ACCEPTING)
        self.move(worker, Step.TERM)
        self.commands.append(Terminate(worker.serial))
        self.timer_in(policy.shutdown_timeout if booted else policy.grace, TimerKind.TERM, worker.serial)

    def kill(self, worker: Worker) -> None:
        self.move(worker, Step.KILL)
        self.commands.append(Kill(worker.serial))
        self.announce("worker.killed", worker=worker.name, connections=dict(worker.connections))
