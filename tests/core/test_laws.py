"""The laws of the core: whatever happens, in whatever order, these hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.core.commands import Accept, BeginDrain, Exit, Kill, SetTimer, Settle, Spawn, Terminate
from supervisor.core.events import (
    BecameReady,
    BeganServing,
    BootFailed,
    ChannelLost,
    Event,
    Exited,
    HelloSaid,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    SpawnFailed,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
)
from supervisor.core.model import (
    Fleet,
    GenerationState,
    Policy,
    Release,
    RolloutState,
    ServiceState,
    WorkerState,
)
from supervisor.core.rollout import step
from supervisor.errors import Refused

RELEASE = Release(app="app:app", python="/usr/bin/python3", directory="/srv/app", label="srv/app")


class World(RuleBasedStateMachine):
    """A supervisor's surroundings: processes that say anything at any time, timers that come when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(policy=Policy(max_draining=2), size=2)
        self.now = 0.0
        self.spawned: set[int] = set()
        self.exited: set[int] = set()
        self.killed: set[int] = set()
        self.timers: list[tuple[float, Timer]] = []
        self.settled: Counter[int] = Counter()
        self.drained: dict[int, float] = {}
        self.exit: int | None = None
        self.has_served = False
        self.crashed = False

    # The supervisor's loop, with the effects recorded

    def submit(self, event: Event) -> bool:
        before = self.fleet
        pending = before.pending
        serving = before.serving
        try:
            decision = step(before, event, self.now)
        except Refused:
            assert self.fleet is before, "law 3: a refused event returns the fleet unchanged"
            return False
        self.fleet = decision.fleet
        for command in decision.commands:
            assert self.exit is None, "nothing follows the last command"
            match command:
                case Spawn(serial=serial):
                    assert serial not in self.spawned
                    self.spawned.add(serial)
                case SetTimer(timer, at):
                    assert at >= self.now
                    self.timers.append((at, timer))
                case Settle(rollout):
                    self.settled[rollout] += 1
                case BeginDrain(serial=serial):
                    self.drained[serial] = self.now
                    worker = before.workers[serial]
                    # law 5: only a cut-over, a stop, or the worker's own wear or surplus drains the serving generation
                    if serving is not None and worker.generation == serving.id and not isinstance(event, StopAsked):
                        cut = pending is not None and self.rollout_state(pending.id) is not RolloutState.ABORTED
                        assert cut or isinstance(event, ScaleAsked | BeganServing), "law 5"
                case Kill(serial):
                    self.killed.add(serial)
                case Accept() | Terminate():
                    pass
                case Exit(code):
                    self.exit = code
                case _:
                    pass
        if self.fleet.serving is not None:
            self.has_served = True
        return True

    def rollout_state(self, number: int) -> RolloutState | None:
        rollout = self.fleet.rollout(number)
        return rollout.state if rollout else None

    def known(self, *states: WorkerState) -> list[int]:
        return [w.serial for w in self.fleet.workers.values() if w.state in states]

    # What can happen

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = sorted((pair for pair in self.timers if pair[0] <= self.now), key=lambda pair: pair[0])
        self.timers = [pair for pair in self.timers if pair[0] > self.now]
        for _, timer in due:
            self.submit(TimerFired(timer))

    @rule()
    def reload(self) -> None:
        last = self.fleet.last_rollout
        if self.submit(ReloadAsked(RELEASE, "test")):
            assert self.fleet.last_rollout == last + 1
        else:
            assert self.fleet.state in (ServiceState.STOPPING, ServiceState.STOPPED)

    @precondition(lambda self: self.fleet.last_rollout > 2)
    @rule()
    def stop(self) -> None:
        self.submit(StopAsked("test"))

    @rule(size=st.integers(0, 4))
    def scale(self, size: int) -> None:
        self.submit(ScaleAsked(size))

    @rule(data=st.data())
    def worker_goes_on(self, data: st.DataObject) -> None:
        """The usual way of a worker, a step further."""
        if not self.fleet.workers:
            return
        worker = self.fleet.workers[data.draw(st.sampled_from(sorted(self.fleet.workers)))]
        if worker.pid is None:
            self.submit(Spawned(worker.serial, 1000 + worker.serial))
        match worker.state:
            case WorkerState.SPAWNED:
                self.submit(HelloSaid(worker.serial))
            case WorkerState.BOOTING:
                self.submit(BecameReady(worker.serial))
            case WorkerState.ACCEPTING:
                self.submit(BeganServing(worker.serial))
            case WorkerState.DRAINING | WorkerState.STOPPING | WorkerState.KILLED:
                self.leave(worker.serial)
            case _:
                pass

    @rule()
    def all_go_on(self) -> None:
        for state in (WorkerState.SPAWNED, WorkerState.BOOTING, WorkerState.ACCEPTING):
            for serial in self.known(state):
                event: Event
                match state:
                    case WorkerState.SPAWNED:
                        event = HelloSaid(serial)
                    case WorkerState.BOOTING:
                        event = BecameReady(serial)
                    case _:
                        event = BeganServing(serial)
                self.submit(event)

    @rule(data=st.data())
    def anything_is_said(self, data: st.DataObject) -> None:
        """Any word, about any worker, known or not, in any state."""
        serial = data.draw(st.integers(1, self.fleet.last_worker + 2))
        event: Event = data.draw(
            st.sampled_from(
                [
                    Spawned(serial, 7),
                    HelloSaid(serial),
                    BecameReady(serial),
                    BeganServing(serial),
                    BootFailed(serial, "import", "no"),
                    ChannelLost(serial, "garbage"),
                    Reported(serial, {"idle": 1}, 5),
                    Reported(serial, {"idle": 1}, 5, worn="old"),
                    *[TimerFired(Timer(kind, serial, 1)) for kind in TimerKind],
                ]
            )
        )
        self.submit(event)

    @rule(data=st.data())
    def worker_exits(self, data: st.DataObject) -> None:
        if self.fleet.workers:
            self.leave(data.draw(st.sampled_from(sorted(self.fleet.workers))))

    def leave(self, serial: int) -> None:
        worker = self.fleet.workers[serial]
        event = Exited(serial, "exited 1", "tail") if worker.pid is not None else SpawnFailed(serial, "no memory")
        assert self.submit(event), "an exit is never refused"
        assert serial not in self.exited
        self.exited.add(serial)

    # The laws

    @invariant()
    def once_serving_always_serving(self) -> None:
        if self.has_served and self.fleet.state is ServiceState.SERVING:
            assert self.fleet.serving is not None, "law 1"

    @invariant()
    def one_rollout_before_its_cut_over(self) -> None:
        assert sum(r.state.pending for r in self.fleet.rollouts) <= 1, "law 2"

    @invariant()
    def one_generation_serves(self) -> None:
        serving = [g for g in self.fleet.generations.values() if g.state is GenerationState.SERVING]
        assert len(serving) <= 1
        for generation in serving:
            # The slot of a worker that failed is filled when its exit has brought its last words.
            filled = {w.slot for w in self.fleet.of(generation.id) if not w.state.retiring or w.failure}
            wanted = set(range(1, generation.size + 1))
            assert filled | set(generation.vacancies) >= wanted, "an empty slot is forgotten"

    @invariant()
    def every_spawn_meets_one_exit(self) -> None:
        assert self.spawned == set(self.fleet.workers) | self.exited, "law 4"

    @invariant()
    def every_reload_has_one_outcome(self) -> None:
        assert all(count == 1 for count in self.settled.values()), "law 8"
        for rollout in self.fleet.rollouts:
            assert rollout.state.pending == (self.settled[rollout.id] == 0), "law 8"

    @invariant()
    def draining_generations_are_bounded(self) -> None:
        if self.fleet.state is ServiceState.SERVING:
            assert self.fleet.draining <= self.fleet.policy.max_draining + 1

    def teardown(self) -> None:
        """Laws 6, 7 and 8: everything exits, the timers fire: it comes to rest, and each request was answered."""
        expired = [w.serial for w in self.fleet.workers.values() if w.state is WorkerState.DRAINING]
        for _ in range(6):
            self.time_passes(100.0)
        for serial in expired:
            assert serial in self.killed or serial in self.exited, "law 6"
        self.submit(StopAsked("teardown"))
        for _ in range(50):
            if not self.fleet.workers:
                break
            for serial in tuple(self.fleet.workers):
                if serial in self.fleet.workers:
                    self.leave(serial)
            self.time_passes(100.0)
        assert not self.fleet.workers, "law 7"
        assert not self.fleet.generations, "law 7"
        assert self.fleet.state is ServiceState.STOPPED, "law 7"
        assert self.exit is not None
        assert set(self.settled) == set(range(1, self.fleet.last_rollout + 1)), "law 8"
        assert all(r.state in (RolloutState.DONE, RolloutState.ABORTED) for r in self.fleet.rollouts), "law 7"


class HotReloadWorld(World):
    """The same, where a first generation that cannot boot keeps the supervisor waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = replace(self.fleet, policy=replace(self.fleet.policy, keep_trying=True))


TestLaws = World.TestCase
TestLaws.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestHotReloadLaws = HotReloadWorld.TestCase
TestHotReloadLaws.settings = settings(
    max_examples=80, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
