"""What a supervisor makes of the fleet that another one left behind.

1. No command was carried out before the fleet that ordered it was on record. So the record is never behind what a
   worker was told; it may be behind what a worker did by itself, and each that lives says that when it comes back.
2. What had not accepted leaves: nobody but its supervisor could have told it to. A rollout that was booting is aborted;
   one that was cutting over goes on if all its workers come back, and is aborted when one of them ends.
3. Whoever should drain and serves is told again; so an order that was lost on the way is given a second time.
4. All clocks start anew.

Without a record the living say what they are, and ``rebuild`` makes a fleet of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from supervisor.core import respawn
from supervisor.core.commands import BeginDrain, Kill, Reexec, SetTimer, Terminate
from supervisor.core.crossing import packet_limit
from supervisor.core.events import Timer, TimerKind
from supervisor.core.lifecycle import SERVICE, Step, after
from supervisor.core.model import (
    Failure,
    Fleet,
    Generation,
    GenerationState,
    Policy,
    Release,
    RolloutState,
    ScalingState,
    ServiceState,
    Worker,
    WorkerState,
)
from supervisor.core.rollout import Rollouts
from supervisor.core.scaling import MOST_WORKERS
from supervisor.errors import Refused

LOST: Final = "supervisor-lost"
"""Why a rollout was aborted whose supervisor has ended."""
UNACCEPTED: Final = frozenset({WorkerState.SPAWNED, WorkerState.BOOTING, WorkerState.READY})
"""Who leaves on losing its supervisor: nobody else could tell it to accept."""

SIZES: Final = range(1, MOST_WORKERS + 1)
PIDS: Final = range(1, 2**22 + 1)
"""The kernel's most (proc_sys_kernel(5), pid_max)."""
_OUT: Final = frozenset({WorkerState.STOPPING, WorkerState.KILLED})
POSSIBLE: Final[Mapping[GenerationState, AbstractSet[WorkerState]]] = {
    GenerationState.BOOTING: UNACCEPTED | _OUT,
    GenerationState.ADMITTING: _OUT | {WorkerState.ACCEPTING, WorkerState.SERVING, WorkerState.DRAINING},
    GenerationState.SERVING: frozenset(WorkerState) - {WorkerState.EXITED},
    GenerationState.DRAINING: _OUT | {WorkerState.DRAINING},
    GenerationState.STOPPING: _OUT,
    GenerationState.GONE: frozenset(),
}
"""What a worker may be while its generation is that."""
NEW: Final = {
    RolloutState.BOOTING: GenerationState.BOOTING,
    RolloutState.CUTTING_OVER: GenerationState.ADMITTING,
}
"""Where a rollout's generation is before its cut-over."""


class Recovery(Rollouts):
    """The decisions of a supervisor that finds workers of another."""

    def reexec(self) -> None:
        """Let the program be replaced, when nothing is under way that only this one could go on with."""
        if self.fleet.state is not ServiceState.SERVING:
            raise Refused(f"the service is {self.fleet.state}: its program is not replaced now", code="out-of-order")
        pending = self.fleet.pending
        if pending is not None and pending.state is not RolloutState.WAITING:
            raise Refused("a rollout is under way; try again when it is settled", code="rollout-in-progress")
        coming = [
            worker.name
            for worker in self.fleet.workers.values()
            if worker.state in {*UNACCEPTED, WorkerState.ACCEPTING}
        ]
        if coming:
            raise Refused(f"worker {coming[0]} is being started; try again when it serves", code="out-of-order")
        lost = [worker.name for worker in self.fleet.workers.values() if not worker.comes_back]
        if lost:
            message = f"worker {lost[0]} runs a stillup that would not come back; reload into a newer one first"
            raise Refused(message, code="out-of-order")
        self.announce("supervisor.reexec")
        self.commands.append(Reexec())

    def recover(self, alive: AbstractSet[int]) -> None:
        """Go on where the record ends; ``alive`` are the serials of those on it whose processes live."""
        recorded = self.fleet
        if recorded.state is ServiceState.STOPPING:
            state = after(SERVICE, recorded.state, Step.RECOVER)
            self.fleet = replace(recorded, state=state, exit_code=0)
        self.announce(
            "service.taken-over",
            generation=recorded.serving.id if recorded.serving is not None else None,
            workers=len(alive),
            died=len(recorded.workers) - len(alive),
        )
        self.abort_what_cannot_go_on(alive)
        for worker in recorded.workers.values():
            if worker.serial not in alive:
                failure = worker.failure or Failure("exit", "ended while no supervisor ran", worker.name, worker.pid)
                self.gone(self.worker(worker.serial), failure, seen=False)
            elif self.worker(worker.serial).state is worker.state:  # else it has just been given an order
                self.remind(worker)
        for generation in tuple(self.fleet.generations.values()):
            vacancies = {
                slot: replace(vacancy, until=self.now + respawn.delay(vacancy.deaths))
                for slot, vacancy in generation.vacancies.items()
            }
            self.fleet = self.fleet.with_generation(replace(generation, vacancies=vacancies))
            for slot, vacancy in vacancies.items():
                self.commands.append(SetTimer(Timer(TimerKind.RESPAWN, generation.id, slot), vacancy.until))
            self.refill(generation.id)
        self.start_waiting()

    def abort_what_cannot_go_on(self, alive: AbstractSet[int]) -> None:
        """A rollout needs all its workers, and those that had not accepted are leaving."""
        pending = self.fleet.pending
        if pending is None or pending.generation is None:
            return
        whole = all(worker.serial in alive for worker in self.fleet.of(pending.generation))
        if pending.state is RolloutState.BOOTING or not whole:
            self.abort(pending, reason=LOST)

    def remind(self, worker: Worker) -> None:
        """Put a timer behind what a living worker was ordered, and give again the orders that are signals."""
        policy = self.fleet.policy
        match worker.state:
            case WorkerState.ACCEPTING | WorkerState.SERVING if not worker.comes_back:
                self.drains_already(worker)
            case WorkerState.ACCEPTING:
                self.timer_in(policy.admit_timeout, TimerKind.ADMIT, worker.serial)
            case WorkerState.DRAINING:
                self.drain_timer(worker)
            case WorkerState.STOPPING:
                self.commands.append(Terminate(worker.serial))
                self.timer_in(policy.shutdown_timeout, TimerKind.TERM, worker.serial)
            case WorkerState.KILLED:
                self.commands.append(Kill(worker.serial))
            case state if state in UNACCEPTED:
                self.terminate(worker)  # an order: its end is no death

    def resume(self, worker: Worker, *, draining: bool) -> None:
        """A worker has come back; ``draining`` is what it does, whatever the record says."""
        if self.fleet.state is ServiceState.STOPPING and worker.state is WorkerState.DRAINING:
            self.commands.append(self.drain(worker, final=True))
            return
        match worker.state:
            case WorkerState.SERVING | WorkerState.ACCEPTING if draining:
                self.drains_already(worker)
            case WorkerState.ACCEPTING:
                self.serving(self.move(worker, Step.SERVE))
            case WorkerState.DRAINING if not draining:
                packet = packet_limit(self.takers())
                self.commands.append(
                    BeginDrain(worker.serial, self.fleet.policy.drain_timeout, final=False, packet=packet)
                )
            case state if state in UNACCEPTED:
                raise Refused(f"worker {worker.name} was not told to accept", code="out-of-order")

    def drains_already(self, worker: Worker) -> None:
        if self.fleet.generations[worker.generation].state is GenerationState.ADMITTING:
            self.fail(worker, "accept", "drains already")
            return
        self.move(worker, Step.DRAIN)
        self.drain_timer(worker)
        self.refill(worker.generation)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker that no record knows says about itself."""

    pid: int
    started: int
    generation: int
    slot: int
    draining: bool
    release: Release


def rebuild(claims: Sequence[Claim], *, policy: Policy, size: int, now: float) -> Fleet:
    """The fleet that these workers are; the serial of each is its place in ``claims``, from 1.

    Of the generations in which somebody serves the latest is the one that serves, and the others are to drain: the
    order comes when they resume.
    """
    serves = max((claim.generation for claim in claims if not claim.draining), default=0)
    workers: dict[int, Worker] = {}
    generations: dict[int, Generation] = {}
    for serial, claim in enumerate(claims, 1):
        mine = claim.generation == serves
        state = WorkerState.SERVING if mine and not claim.draining else WorkerState.DRAINING
        workers[serial] = Worker(
            serial, claim.generation, claim.slot, state, spawned=now, pid=claim.pid, started=claim.started
        )
        known = generations.get(claim.generation)
        generations[claim.generation] = Generation(
            claim.generation,
            GenerationState.SERVING if mine else GenerationState.DRAINING,
            known.release if known is not None else claim.release,
            max(known.size if known is not None else 1, claim.slot),
            drained_from=None if mine else now,
        )
    return Fleet(
        policy=policy,
        size=size,
        state=ServiceState.SERVING if serves else ServiceState.STARTING,
        generations=generations,
        workers=workers,
        last_generation=max(generations, default=0),
        last_worker=len(claims),
    )


def consistent(fleet: Fleet) -> bool:
    """Whether a fleet that was read from a record could have been one of ours, so that it can be taken over."""
    return (
        _workers_fit(fleet)
        and all(_generation_fits(fleet, key, generation) for key, generation in fleet.generations.items())
        and _rollouts_fit(fleet)
        and (fleet.serving is not None) == (fleet.state is ServiceState.SERVING)
        and fleet.state is not ServiceState.STOPPED
        and all(size in SIZES for size in (fleet.size, *(scaling.size for scaling in fleet.scalings)))
        and sum(scaling.state is ScalingState.UNDER_WAY for scaling in fleet.scalings) <= 1
        and max((scaling.id for scaling in fleet.scalings), default=0) <= fleet.last_scaling
    )


def _workers_fit(fleet: Fleet) -> bool:
    return max(fleet.workers, default=0) <= fleet.last_worker and all(
        key == worker.serial and worker.generation in fleet.generations and (worker.pid is None or worker.pid in PIDS)
        for key, worker in fleet.workers.items()
    )


def _generation_fits(fleet: Fleet, key: int, generation: Generation) -> bool:
    states = [worker.state for worker in fleet.of(key)]
    return (
        key == generation.id <= fleet.last_generation
        and generation.size in SIZES
        and (generation.state is GenerationState.SERVING or bool(states))
        and all(state in POSSIBLE[generation.state] for state in states)
    )


def _rollouts_fit(fleet: Fleet) -> bool:
    """At most one is before its cut-over, and its generation is where it is; and at most one generation serves."""
    begun = {(one.generation, NEW[one.state]) for one in fleet.rollouts if one.state in NEW}
    new = {(one.id, one.state) for one in fleet.generations.values() if one.state in NEW.values()}
    return (
        begun == new
        and sum(rollout.state.pending for rollout in fleet.rollouts) <= 1
        and fleet.count(GenerationState.SERVING) <= 1
        and max((rollout.id for rollout in fleet.rollouts), default=0) <= fleet.last_rollout
    )
