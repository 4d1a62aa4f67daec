"""The replacement of one generation by another.

1. A generation touches no client before all its workers are READY (surge: new beside old).
2. The old generation is told to drain only when every new worker SERVES: the cut-over.
3. A rollout that fails before its cut-over costs the old generation nothing.
4. At most one rollout is before its cut-over; a later request supersedes it.
5. A rollout is settled once: at its cut-over, or when it is aborted.
6. A release that crashes soon after its cut-over is taken back by a rollout like any other (``core.probation``).
7. A worker is never forgotten: it leaves the fleet by its exit alone, and every order to leave has a timer behind it.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.core.commands import (
    BeginDrain,
    CloseListeners,
    Exit,
    Hurry,
    Kill,
    Terminate,
)
from supervisor.core.events import (
    HOW_UNKNOWN,
    BecameReady,
    BeganServing,
    BootFailed,
    ChannelLost,
    Exited,
    HelloSaid,
    Reported,
    Spawned,
    SpawnFailed,
    Timer,
    TimerKind,
)
from supervisor.core.lifecycle import GENERATION, ROLLOUT, SERVICE, WORKER, Step, after
from supervisor.core.model import (
    Failure,
    Generation,
    GenerationState,
    Release,
    Rollout,
    RolloutState,
    ServiceState,
    Worker,
    WorkerState,
)
from supervisor.core.probation import Probation
from supervisor.errors import Refused

CALLED_OFF = "called-off"
"""Why a rollout was aborted that somebody asked to."""


class Rollouts(Probation):
    """The decisions about generations, and about the ways of their workers into service and out of it."""

    # Requests

    def reload(self, release: Release, why: str, *, rolls_back: int | None = None) -> None:
        if self.fleet.state in (ServiceState.STOPPING, ServiceState.STOPPED):
            message = "the service is stopping; start it again to run a new release"
            raise Refused(message, code="stopping")
        if self.fleet.pending is not None:
            self.abort(self.fleet.pending, reason="superseded")
        number = self.fleet.last_rollout + 1
        rollout = Rollout(number, RolloutState.WAITING, release, why, asked=self.now, rolls_back=rolls_back)
        self.fleet = replace(self.fleet, last_rollout=number).with_rollout(rollout)
        self.start_waiting()
        if self.fleet.pending is not None and self.fleet.pending.state is RolloutState.WAITING:
            self.announce("rollout.waiting", rollout=number)
            if self.fleet.count(GenerationState.DRAINING) >= self.fleet.policy.max_draining:
                self.hurry()

    def call_off(self) -> None:
        pending = self.fleet.pending
        if pending is None:
            message = "no rollout is before its cut-over; 'stillup rollback' takes one back that was put into service"
            raise Refused(message, code="out-of-order")
        if self.fleet.serving is None:
            message = "nothing serves but for what this rollout brings; 'stillup stop' ends the service"
            raise Refused(message, code="out-of-order")
        self.abort(pending, reason=CALLED_OFF)

    def stop(self, why: str, *, insist: bool = False) -> None:
        if self.fleet.state is ServiceState.STOPPING:
            if insist:
                self.insist(why)
            return
        self.fleet = replace(self.fleet, state=after(SERVICE, self.fleet.state, Step.STOP))
        self.announce("service.stopping", why=why)
        if self.fleet.pending is not None:
            self.abort(self.fleet.pending, reason="stopping")
        self.abort_scaling("stopping")
        self.commands.append(CloseListeners())
        for generation in tuple(self.fleet.generations.values()):
            self.retire(generation, final=True)
        self.rest()

    def insist(self, why: str) -> None:
        """End at once what still drains; asked once more, kill."""
        self.announce("service.hurried", why=why)
        for worker in tuple(self.fleet.workers.values()):
            if worker.state is WorkerState.DRAINING:
                self.commands.append(BeginDrain(worker.serial, 0.0, final=True))
                self.terminate(worker)
            elif worker.state is WorkerState.STOPPING:
                self.kill(worker)

    # A worker's way into service

    def boot(self, event: Spawned | SpawnFailed | HelloSaid | BootFailed | BecameReady | BeganServing) -> None:
        worker = self.worker(event.serial)
        match event:
            case Spawned(_, pid, started):
                if worker.pid is not None:
                    message = f"worker {worker.name} was spawned already"
                    raise Refused(message, code="out-of-order")
                worker = self.put(replace(worker, pid=pid, started=started))
                # An order to leave that came before the process existed is given again.
                if worker.state is WorkerState.STOPPING:
                    self.commands.append(Terminate(worker.serial))
                elif worker.state is WorkerState.KILLED:
                    self.commands.append(Kill(worker.serial))
            case SpawnFailed(_, message):
                self.gone(worker, Failure("spawn", message, worker.name))
            case HelloSaid(_, comes_back):
                self.move(replace(worker, comes_back=comes_back), Step.HELLO)
            case BootFailed(_, stage, message):
                self.fail(worker, stage, message)
            case BecameReady(_, probe):
                self.ready(self.move(worker, Step.READY), probe)
            case _:
                self.serving(self.put(replace(self.move(worker, Step.SERVE), heard=self.now)))

    def ready(self, worker: Worker, probe: str) -> None:
        generation = self.fleet.generations[worker.generation]
        if generation.state is GenerationState.SERVING:
            self.accept(worker)
        elif all(other.state is WorkerState.READY for other in self.fleet.of(generation.id)):
            rollout = self.pending_of(generation)
            rollout = replace(rollout, state=after(ROLLOUT, rollout.state, Step.READY), ready=self.now, probe=probe)
            self.fleet = self.fleet.with_rollout(rollout)
            self.move_generation(generation, Step.READY)
            for other in tuple(self.fleet.of(generation.id)):
                self.accept(other)

    def serving(self, worker: Worker) -> None:
        generation = self.fleet.generations[worker.generation]
        if worker.state is not WorkerState.SERVING:
            return  # it drains by now
        if generation.state is GenerationState.ADMITTING:
            if all(other.state is WorkerState.SERVING for other in self.fleet.of(generation.id)):
                self.cut_over(generation)
            return
        self.take_over(worker)

    # A worker's life and end

    def life(self, event: Reported | ChannelLost | Exited) -> None:
        worker = self.worker(event.serial)
        match event:
            case Reported(_, connections, requests, worn, oldest, crossed):
                if crossed.lost > worker.crossed.lost:
                    self.announce(
                        "connections.lost", worker=worker.name, connections=crossed.lost - worker.crossed.lost
                    )
                since = {kind: self.now - age for kind, age in oldest.items()}
                figures = replace(worker, connections=connections, requests=requests, oldest=since, crossed=crossed)
                self.report(self.heard(figures), worn)
            case ChannelLost(_, message):
                self.channel_lost(worker, message)
            case _:
                failure = worker.failure or Failure("exit", event.how)
                self.gone(worker, replace(failure, worker=worker.name, pid=worker.pid, output=event.output))

    def channel_lost(self, worker: Worker, message: str) -> None:
        if worker.state in (WorkerState.BOOTING, WorkerState.READY, WorkerState.ACCEPTING):
            self.fail(worker, "exit", message)
        elif worker.state is WorkerState.SERVING:
            # It can be told nothing now; when it comes back by another channel, it is told to drain.
            failed = replace(worker, failure=Failure("channel", message))
            self.move(failed, Step.DRAIN)
            self.drain_timer(worker)
            self.refill(worker.generation, died=failed)

    def gone(self, worker: Worker, failure: Failure, *, seen: bool = True) -> None:
        """A worker has left the fleet; unless that was ``seen``, it is not known of what."""
        after(WORKER, worker.state, Step.EXIT)
        self.fleet = self.fleet.without_worker(worker.serial)
        generation = self.fleet.generations[worker.generation]
        generation = replace(generation, crossed=generation.crossed + worker.crossed)
        self.fleet = replace(self.fleet, crossed=self.fleet.crossed + worker.crossed).with_generation(generation)
        match generation.state:
            case GenerationState.BOOTING | GenerationState.ADMITTING:
                self.abort(self.pending_of(generation), reason=failure.stage, failure=failure)
            case GenerationState.SERVING:
                expected = worker.state.retiring and worker.failure is None
                if not expected:
                    self.announce(
                        "worker.died",
                        worker=worker.name,
                        pid=worker.pid,
                        why=_why(failure),
                        message=_words(failure),
                        output=failure.output,
                    )
                    self.fail_scaling(worker, failure)
                # First of all the slot: what crashes serves until what was before it does.
                self.refill(generation.id, died=worker)
                if not expected and seen and (back := self.count_death(generation, failure)) is not None:
                    self.reload(back.release, back.why, rolls_back=back.rollout)
            case _:
                if worker.state is WorkerState.DRAINING and failure.message not in ("exited 0", HOW_UNKNOWN):
                    self.announce("worker.lost", worker=worker.name, why=_why(failure))
                self.bury(generation)
        self.rest()

    def timer(self, timer: Timer) -> None:
        if timer.kind is TimerKind.RESPAWN:
            generation = self.fleet.generations.get(timer.of)
            if generation is None or timer.slot not in generation.vacancies:
                raise Refused(f"no vacancy {timer.of}.{timer.slot}", code="out-of-order")
            deaths = generation.vacancies[timer.slot].deaths
            self.spawn(self.vacate(timer.of, timer.slot), timer.slot, deaths)
            return
        worker = self.worker(timer.of)
        policy = self.fleet.policy
        match timer.kind, worker.state:
            case TimerKind.BOOT, WorkerState.SPAWNED | WorkerState.BOOTING:
                stage = "hello" if worker.state is WorkerState.SPAWNED else "boot"
                self.fail(worker, stage, f"not ready after {policy.boot_timeout:g} s (--boot-timeout)")
            case TimerKind.ADMIT, WorkerState.ACCEPTING:
                self.fail(worker, "accept", f"did not begin to accept within {policy.admit_timeout:g} s")
            case TimerKind.DRAIN, WorkerState.DRAINING:
                self.announce("worker.overdue", worker=worker.name, connections=dict(worker.connections))
                self.terminate(worker)
            case TimerKind.TERM, WorkerState.STOPPING:
                self.kill(worker)
            case _:
                raise Refused(f"'{timer.kind}' came late for {worker.name}", code="out-of-order")

    # Generations and rollouts

    def start_waiting(self) -> None:
        """Begin the rollout that waits, if older generations leave room."""
        waiting = self.fleet.pending
        if waiting is None or waiting.state is not RolloutState.WAITING:
            return
        most = self.fleet.policy.max_draining
        if max(self.fleet.count(GenerationState.DRAINING), self.fleet.count(GenerationState.STOPPING)) >= most:
            return
        number = self.fleet.last_generation + 1
        serving = self.fleet.serving
        generation = Generation(number, GenerationState.BOOTING, waiting.release, self.fleet.size)
        rollout = replace(
            waiting,
            state=after(ROLLOUT, waiting.state, Step.BEGIN),
            generation=number,
            previous=serving.id if serving else None,
            replaced=serving.release if serving else None,
            begun=self.now,
        )
        self.fleet = replace(self.fleet, last_generation=number).with_generation(generation).with_rollout(rollout)
        self.announce(
            "rollout.begun", rollout=rollout.id, generation=number, why=rollout.why, release=rollout.release.label
        )
        for slot in range(1, generation.size + 1):
            self.spawn(generation, slot, deaths=0)

    def cut_over(self, generation: Generation) -> None:
        rollout = self.pending_of(generation)
        old = self.fleet.serving
        if old is not None:
            self.retire(old)
        self.move_generation(generation, Step.CUT_OVER)
        self.fleet = replace(self.fleet, state=after(SERVICE, self.fleet.state, Step.SERVE))
        rollout = replace(rollout, state=after(ROLLOUT, rollout.state, Step.CUT_OVER), cut=self.now)
        self.fleet = self.fleet.with_rollout(rollout)
        self.announce("rollout.cut-over", rollout=rollout.id, generation=generation.id, previous=rollout.previous)
        self.finish_rollouts()
        self.refill(generation.id)

    def abort(self, rollout: Rollout, *, reason: str, failure: Failure | None = None) -> None:
        state = after(ROLLOUT, rollout.state, Step.ABORT)
        rollout = replace(rollout, state=state, ended=self.now, reason=reason, failure=failure)
        self.fleet = self.fleet.with_rollout(rollout)
        self.announce(
            "rollout.aborted",
            rollout=rollout.id,
            generation=rollout.generation,
            reason=reason,
            why=_why(failure) if failure else "",
            message=_words(failure) if failure else "",
            output=failure.output if failure else "",
        )
        first = self.fleet.state is ServiceState.STARTING and self.fleet.pending is None
        if first and failure is not None and not self.fleet.policy.keep_trying:
            self.fleet = replace(self.fleet, exit_code=1)
            self.stop(f"generation {rollout.generation} could not start")
        elif rollout.generation is not None:
            self.retire(self.fleet.generations[rollout.generation])

    def retire(self, generation: Generation, *, final: bool = False) -> None:
        """Send every worker of a generation on its way. A final drain is also told to those that drain already."""
        if generation.state not in (GenerationState.DRAINING, GenerationState.STOPPING):
            give_up = Step.DRAIN if generation.state is GenerationState.SERVING else Step.ABORT
            state = after(GENERATION, generation.state, give_up)
            generation = replace(generation, state=state, vacancies={}, drained_from=self.now)
            self.fleet = self.fleet.with_generation(generation)
        for worker in tuple(self.fleet.of(generation.id)):
            if final:
                self.leave(worker, final=True)
            else:
                self.relieved(worker)
        self.bury(generation)

    def bury(self, generation: Generation) -> None:
        """Forget a draining generation that has no worker left, and what waited for that goes on."""
        if any(True for _ in self.fleet.of(generation.id)):
            return
        self.move_generation(generation, Step.END)
        crossed = generation.crossed
        for rollout in self.fleet.rollouts:
            if rollout.previous == generation.id and rollout.state in _DRAINED_BY:
                self.fleet = self.fleet.with_rollout(replace(rollout, crossed=crossed))
        self.announce("generation.gone", generation=generation.id, moved=crossed.given, closed=crossed.closed)
        self.finish_rollouts()
        self.start_waiting()

    def finish_rollouts(self) -> None:
        for rollout in self.fleet.rollouts:
            if rollout.state is RolloutState.DRAINING and rollout.previous not in self.fleet.generations:
                ended = replace(rollout, state=after(ROLLOUT, rollout.state, Step.END), ended=self.now)
                self.fleet = self.fleet.with_rollout(ended)
                self.announce("rollout.done", rollout=rollout.id, generation=rollout.generation)

    def hurry(self) -> None:
        for worker in self.fleet.workers.values():
            if worker.state is WorkerState.DRAINING:
                self.commands.append(Hurry(worker.serial))

    def rest(self) -> None:
        """End the supervisor once it is stopping and the last worker has gone."""
        if self.fleet.state is ServiceState.STOPPING and not self.fleet.workers:
            self.fleet = replace(self.fleet, state=after(SERVICE, self.fleet.state, Step.END))
            self.announce("service.stopped", code=self.fleet.exit_code)
            self.commands.append(Exit(self.fleet.exit_code))

    # Small change

    def pending_of(self, generation: Generation) -> Rollout:
        return next(r for r in self.fleet.rollouts if r.generation == generation.id and r.state.pending)


_DRAINED_BY = (RolloutState.DRAINING, RolloutState.ROLLED_BACK)
"""Where a rollout may stand whose previous generation is not gone yet."""


_OUR_WORD = frozenset({"spawn", "hello", "boot", "accept", "channel", "exit"})
"""Stages of a failure whose message is ours, or the kernel's. In any other the app may have put its own into it."""


def _why(failure: Failure) -> str:
    """Who failed and how, without a word of the app's."""
    process = f" (pid {failure.pid})" if failure.pid is not None else ""
    who = f"{failure.worker}{process} " if failure.worker else ""
    return f"{who}{failure.message if failure.stage in _OUR_WORD else f'failed ({failure.stage})'}"


def _words(failure: Failure) -> str:
    """What the app may have said of it; empty if it has said nothing."""
    return "" if failure.stage in _OUR_WORD else failure.message
