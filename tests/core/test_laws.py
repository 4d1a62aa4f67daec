"""The laws of the core: whatever happens, in whatever order, these hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, datetime

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.core.commands import (
    Accept,
    Announce,
    BeginDrain,
    Command,
    DumpStacks,
    Exit,
    Kill,
    SetTimer,
    Spawn,
    Terminate,
)
from supervisor.core.crossing import Crossed
from supervisor.core.events import (
    BeatsDue,
    BecameReady,
    BeganServing,
    BootFailed,
    ChannelLost,
    Event,
    Exited,
    HelloSaid,
    ReloadAsked,
    Reported,
    Resumed,
    ScaleAsked,
    Spawned,
    SpawnFailed,
    StopAsked,
    Timer,
    TimerFired,
    TimerKind,
    TookOver,
)
from supervisor.core.model import (
    Fleet,
    GenerationState,
    Policy,
    Release,
    RolloutState,
    ScalingState,
    ServiceState,
    Worker,
    WorkerState,
)
from supervisor.core.step import step
from supervisor.errors import Refused
from supervisor.wire.events import make

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RELEASES = [
    Release(app="app:app", python="/usr/bin/python3", directory=f"/srv/{name}", label=f"srv/{name}")
    for name in ("one", "two")
]
RELEASE = RELEASES[0]
CUT = (RolloutState.DRAINING, RolloutState.DONE, RolloutState.ROLLED_BACK)
"""The states of a rollout from its cut-over on."""
DEADLINES = {
    WorkerState.SPAWNED: TimerKind.BOOT,
    WorkerState.BOOTING: TimerKind.BOOT,
    WorkerState.ACCEPTING: TimerKind.ADMIT,
    WorkerState.DRAINING: TimerKind.DRAIN,
    WorkerState.STOPPING: TimerKind.TERM,
}
"""The timer behind each state that a worker might never leave by itself. READY is left with its fellows."""


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
        self.scaled: Counter[int] = Counter()
        self.exit: int | None = None
        self.has_served = False
        self.crossed = Crossed()
        self.heard: dict[int, float] = {}
        """When each worker was heard last, or could first be heard again."""
        self.hung: set[int] = set()
        """Those that were found to hang and were not heard since."""
        self.cut: dict[int, float] = {}
        self.died: dict[int, list[float]] = {}
        """By generation, when its workers died without having been told to leave."""
        self.rolled_back: Counter[int] = Counter()
        self.left_over: set[int] = set()
        """Generations that drained when their supervisor ended in the middle of a stop: they may be many."""

    # The supervisor's loop, with the effects recorded

    def submit(self, event: Event) -> bool:
        before = self.fleet
        copy = replace(before, generations=dict(before.generations), workers=dict(before.workers))
        try:
            decision = step(before, event, self.now)
        except Refused:
            return False
        finally:
            assert before == copy, "law 3: a decision changes nothing in the fleet that it was given"
        self.fleet = decision.fleet
        self.listen(before, event)
        for command in decision.commands:
            assert self.exit is None, "nothing follows the last command"
            if isinstance(command, Announce):
                make(command.kind, command.data, seq=1, at=NOW, monotonic=self.now)  # raises where it has no such shape
            self.check_judgement(command, before, event)
            match command:
                case Spawn(serial=serial):
                    assert serial not in self.spawned
                    self.spawned.add(serial)
                case SetTimer(timer, at):
                    assert at >= self.now
                    self.timers.append((at, timer))
                case Announce("rollout.cut-over" | "rollout.aborted", data):
                    rollout = int(str(data["rollout"]))
                    self.settled[rollout] += 1
                    self.check_outcome(rollout)
                case Announce("scaling.done" | "scaling.aborted", data):
                    scaling = int(str(data["scaling"]))
                    self.scaled[scaling] += 1
                    self.check_scaling(scaling)
                case Accept(serial):
                    self.check_accept(before.workers[serial])
                case BeginDrain(serial=serial) | Terminate(serial) | Kill(serial):
                    if isinstance(command, Kill):
                        self.killed.add(serial)
                    worker = before.workers[serial]
                    if before.generations[worker.generation].state is GenerationState.SERVING:
                        assert self.may_leave(before, worker, event), "law 5"
                case Exit(code):
                    self.exit = code
                case _:
                    pass
        if self.fleet.serving is not None:
            self.has_served = True
        return True

    def listen(self, before: Fleet, event: Event) -> None:
        """Keep an account of our own of who was heard when, and of who died."""
        match event:
            case BeganServing(serial) | Reported(serial) | Resumed(serial):
                self.heard[serial] = self.now
                self.hung.discard(serial)
            case TookOver():
                self.heard, self.hung = {}, set()  # all clocks start anew with the first look
            case BeatsDue(late=late):
                self.heard = dict.fromkeys(self.heard, self.now) if late else self.heard
                for worker in before.of(before.serving.id) if before.serving is not None else ():
                    self.heard.setdefault(worker.serial, self.now)
            case Exited(serial):
                worker = before.workers[serial]
                if worker.failure is not None or not worker.state.retiring:
                    self.died.setdefault(worker.generation, []).append(self.now)
                    self.check_patience(before, worker.generation)
            case _:
                pass

    def check_judgement(self, command: Command, before: Fleet, event: Event) -> None:
        """Laws 19 to 22: who is found to hang, who is killed for it, what is rolled back, and to what."""
        match command:
            case DumpStacks(serial):
                assert isinstance(event, BeatsDue)
                assert not event.late, "law 19: a supervisor that was late judges nobody"
                limit = self.fleet.policy.hang_timeout
                assert limit is not None
                assert event.at - self.heard[serial] > limit, "law 19"
                assert serial not in self.hung, "law 19: once"
                self.hung.add(serial)
            case Kill(serial) if before.workers[serial].state is WorkerState.SERVING:
                assert isinstance(event, BeganServing | Resumed), "law 20: its replacement serves first"
                assert self.fleet.workers[event.serial].state is WorkerState.SERVING, "law 20"
                assert serial in self.hung, "law 20: who is heard is not killed"
            case BeginDrain(serial=serial) if isinstance(event, BeganServing | Resumed):
                assert serial not in self.hung or before.workers[serial].state is WorkerState.DRAINING, "law 20"
            case Announce("rollout.cut-over", data):
                self.cut[int(str(data["generation"]))] = self.now
            case Announce("rollout.rolled-back", data):
                self.check_rollback(before, int(str(data["rollout"])))
            case _:
                pass

    def check_patience(self, before: Fleet, number: int) -> None:
        """Nobody waits longer than that: what has crashed in its probation and can be taken back is."""
        generation = before.generations[number]
        rollout = next((r for r in before.rollouts if r.generation == number), None)
        if generation.state is not GenerationState.SERVING or rollout is None or rollout.replaced is None:
            return
        cut = self.cut[number]
        deaths = sum(cut <= at for at in self.died[number])
        due = self.now - cut < before.policy.probation and deaths >= max(2, generation.size)
        able = before.pending is None and rollout.rolls_back is None and rollout.replaced != rollout.release
        if due and able:
            assert self.rollout_state(rollout.id) is RolloutState.ROLLED_BACK, "law 21"

    def check_rollback(self, before: Fleet, number: int) -> None:
        """A rollout that is rolled back has crashed in its probation, and what it replaced comes back."""
        self.rolled_back[number] += 1
        bad = self.fleet.rollout(number)
        cure = self.fleet.rollout(self.fleet.last_rollout)
        assert bad is not None
        assert bad.generation is not None
        assert cure is not None
        assert bad.state is RolloutState.ROLLED_BACK
        assert bad.rolls_back is None, "law 22: no ping-pong"
        assert before.pending is None, "law 22: what is under way is the cure"
        assert (cure.rolls_back, cure.release) == (number, bad.replaced), "law 21"
        assert bad.replaced != bad.release, "law 21"
        cut, policy = self.cut[bad.generation], self.fleet.policy
        assert self.now - cut < policy.probation, "law 21"
        deaths = sum(cut <= at for at in self.died[bad.generation])
        assert deaths >= max(2, before.generations[bad.generation].size), "law 21"

    def check_outcome(self, number: int) -> None:
        """A rollout that is settled was aborted, or every slot of its generation serves."""
        rollout = self.fleet.rollout(number)
        assert rollout is not None
        if rollout.state is RolloutState.ABORTED:
            return
        assert rollout.state in CUT
        generation = self.fleet.serving
        assert generation is not None
        assert generation.id == rollout.generation
        serving = [w.slot for w in self.fleet.of(generation.id) if w.state is WorkerState.SERVING]
        assert serving == list(range(1, generation.size + 1)), "law 9: all serve before the old may go"

    def check_scaling(self, number: int) -> None:
        """A request for more or fewer workers that is done has found as many serving, and no more."""
        scaling, serving = self.fleet.scaling(number), self.fleet.serving
        assert scaling is not None
        if scaling.state is ScalingState.ABORTED:
            return
        assert serving is not None
        slots = [w.slot for w in self.fleet.of(serving.id) if w.state is WorkerState.SERVING]
        assert slots == list(range(1, scaling.size + 1)), "law 17"
        assert not any(w.slot > scaling.size for w in self.fleet.of(serving.id) if not w.state.retiring), "law 17"

    def check_accept(self, worker: Worker) -> None:
        """A worker is told to accept with all its fellows, or in a generation that serves."""
        if self.fleet.generations[worker.generation].state is GenerationState.SERVING:
            return
        fellows = list(self.fleet.of(worker.generation))
        assert len(fellows) == self.fleet.generations[worker.generation].size
        assert all(fellow.state is WorkerState.ACCEPTING for fellow in fellows), "law 10: all are READY first"

    def may_leave(self, before: Fleet, worker: Worker, event: Event) -> bool:
        """Whether a worker of the generation that served before this event may be told to leave."""
        match event:
            case StopAsked():
                return True
            case ScaleAsked(size):
                return worker.slot > size
            case BeganServing():
                if before.pending is not None and self.rollout_state(before.pending.id) in CUT:
                    return True
                heirs = [w for w in self.fleet.of(worker.generation) if w.slot == worker.slot]
                served = event.serial == worker.serial or any(heir.state is WorkerState.SERVING for heir in heirs)
                return worker.worn != "" and served
            case Spawned(serial) | BootFailed(serial) | ChannelLost(serial):
                return serial == worker.serial
            case TimerFired(timer):
                return timer.of == worker.serial
            case _:
                return False

    def rollout_state(self, number: int) -> RolloutState | None:
        rollout = self.fleet.rollout(number)
        return rollout.state if rollout else None

    def known(self, *states: WorkerState) -> list[int]:
        return [w.serial for w in self.fleet.workers.values() if w.state in states]

    # What can happen

    @initialize(served=st.booleans())
    def begin(self, served: bool) -> None:
        """Half of all stories begin where most of them happen: while a generation serves."""
        if served:
            self.submit(ReloadAsked(RELEASE, "start"))
            self.all_go_on()
            assert self.fleet.serving is not None

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = sorted((pair for pair in self.timers if pair[0] <= self.now), key=lambda pair: pair[0])
        self.timers = [pair for pair in self.timers if pair[0] > self.now]
        for _, timer in due:
            self.submit(TimerFired(timer))

    @rule(
        late=st.booleans(),
        ago=st.just(0.0) | st.floats(0.0, 100.0),
        seconds=st.just(61.0) | st.floats(0.0, 100.0),
        data=st.data(),
    )
    def beats_are_due(self, late: bool, ago: float, seconds: float, data: st.DataObject) -> None:
        """Some are heard and some are not; the look at it may be an old one."""
        self.time_passes(seconds)
        serving = self.known(WorkerState.SERVING)
        heard = data.draw(st.sets(st.sampled_from(serving))) if serving else set()
        for serial in sorted(heard):
            self.submit(Reported(serial, crossed=self.fleet.workers[serial].crossed))
        assert self.submit(BeatsDue(self.now - ago, late=late)), "a look is never refused"
        at = self.now - ago
        limit = self.fleet.policy.hang_timeout
        for worker in self.fleet.workers.values():
            judged = self.fleet.serving is not None and worker.generation == self.fleet.serving.id
            if judged and worker.state is WorkerState.SERVING and limit is not None and not late:
                silent = at - self.heard[worker.serial] > limit
                assert not silent or worker.serial in self.hung, "law 19: none is overlooked"

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(reload=st.booleans())
    def all_hang(self, reload: bool) -> None:
        """Nobody is heard for longer than the limit; then heirs come to serve, and perhaps another generation."""
        self.time_passes(61.0)
        self.submit(BeatsDue(self.now))
        if reload:
            self.submit(ReloadAsked(RELEASE, "test"))
        self.all_go_on()

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(most=st.integers(1, 8), seconds=st.sampled_from([0.0, 29.0, 31.0]))
    def workers_crash(self, most: int, seconds: float) -> None:
        """Workers of the generation that serves die, and those that come in their place."""
        self.time_passes(seconds)
        for _ in range(most):
            serving = self.fleet.serving
            if serving is None:
                return
            serial = next((w.serial for w in self.fleet.of(serving.id) if not w.state.retiring), None)
            if serial is None:
                return
            if self.fleet.workers[serial].pid is None:
                self.submit(Spawned(serial, 1000 + serial))
            self.leave(serial)

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(release=st.sampled_from(RELEASES), asked=st.booleans(), most=st.integers(1, 8), seconds=st.floats(0.0, 40.0))
    def release_crashes(self, release: Release, asked: bool, most: int, seconds: float) -> None:
        """A release is put into service and crashes, perhaps while the next one boots."""
        for serial in self.known(WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED):
            self.leave(serial)
        if not self.submit(ReloadAsked(release, "test")):
            return
        self.all_go_on()
        if asked:
            self.submit(ReloadAsked(RELEASE, "test"))
        self.workers_crash(most, seconds)
        if self.rolled_back:
            self.all_go_on()
            self.workers_crash(most, 0.0)

    @rule(release=st.sampled_from(RELEASES))
    def reload(self, release: Release) -> None:
        last = self.fleet.last_rollout
        if self.submit(ReloadAsked(release, "test")):
            assert self.fleet.last_rollout == last + 1
        else:
            assert self.fleet.state in (ServiceState.STOPPING, ServiceState.STOPPED)

    @precondition(lambda self: self.fleet.last_rollout > 2)
    @rule(insist=st.booleans())
    def stop(self, insist: bool) -> None:
        self.submit(StopAsked("test", insist))

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
        known = self.fleet.workers[serial].crossed if serial in self.fleet.workers else Crossed()
        events: list[Event] = [
            Spawned(serial, 7),
            HelloSaid(serial),
            BecameReady(serial),
            BeganServing(serial),
            BootFailed(serial, "import", "no"),
            ChannelLost(serial, "garbage"),
            Reported(serial, {"idle": 1}, 5, crossed=known),
            Reported(serial, {"idle": 1}, 5, worn="old", crossed=known),
            *[TimerFired(Timer(kind, serial, 1)) for kind in TimerKind],
        ]
        self.submit(data.draw(st.sampled_from(events)))

    @rule(most=st.integers(1, 4))
    def workers_wear_out(self, most: int) -> None:
        for serial in self.known(WorkerState.SERVING)[-most:]:
            crossed = self.fleet.workers[serial].crossed
            self.submit(Reported(serial, {"idle": 1}, 5, worn="old", crossed=crossed))

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(how=st.sampled_from([BootFailed(0, "import", "no"), ChannelLost(0, "garbage"), Exited(0, "exited 1")]))
    def heir_fails(self, how: BootFailed | ChannelLost | Exited) -> None:
        """Whoever is on its way to a worn worker's slot does not come to serve."""
        assert self.fleet.serving is not None
        for worn in self.worn(self.fleet.serving.id):
            for heir in self.heirs(worn):
                if isinstance(how, Exited):
                    self.leave(heir.serial)
                else:
                    self.submit(replace(how, serial=heir.serial))

    @rule(data=st.data(), more=st.builds(Crossed, *[st.integers(0, 9)] * 4, st.floats(0.0, 9.0)))
    def more_has_crossed(self, data: st.DataObject, more: Crossed) -> None:
        """A worker's report, whose figures of its whole life only rise."""
        if self.fleet.workers:
            worker = self.fleet.workers[data.draw(st.sampled_from(sorted(self.fleet.workers)))]
            self.submit(Reported(worker.serial, crossed=worker.crossed + more))

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
    def a_rollout_is_rolled_back_once(self) -> None:
        assert all(count == 1 for count in self.rolled_back.values()), "law 22"
        for rollout in self.fleet.rollouts:
            assert (rollout.state is RolloutState.ROLLED_BACK) == (rollout.id in self.rolled_back), "law 22"

    @invariant()
    def every_scaling_has_one_outcome(self) -> None:
        assert all(count == 1 for count in self.scaled.values()), "law 16"
        for scaling in self.fleet.scalings:
            assert (scaling.state is ScalingState.UNDER_WAY) == (self.scaled[scaling.id] == 0), "law 16"
        assert sum(s.state is ScalingState.UNDER_WAY for s in self.fleet.scalings) <= 1, "law 16"

    @invariant()
    def nothing_that_crossed_is_forgotten(self) -> None:
        """Law 14: the crossing's figures, of the dead and of the living together, never fall."""
        now = sum((worker.crossed for worker in self.fleet.workers.values()), self.fleet.crossed)
        for part in fields(Crossed):
            assert getattr(now, part.name) >= getattr(self.crossed, part.name), "law 14"
        self.crossed = now

    @invariant()
    def draining_generations_are_bounded(self) -> None:
        if self.fleet.state in (ServiceState.STARTING, ServiceState.SERVING):
            ours = [g for g in self.fleet.generations.values() if g.id not in self.left_over]
            for state in (GenerationState.DRAINING, GenerationState.STOPPING):
                assert sum(g.state is state for g in ours) <= self.fleet.policy.max_draining, "law 11"

    @invariant()
    def worn_workers_are_replaced_one_at_a_time(self) -> None:
        for generation in self.fleet.generations.values():
            renewed = [w.name for w in self.worn(generation.id) if self.heirs(w)]
            assert len(renewed) <= 1, "law 14"

    def worn(self, generation: int) -> list[Worker]:
        return [w for w in self.fleet.of(generation) if w.worn and w.state is WorkerState.SERVING]

    def heirs(self, worn: Worker) -> list[Worker]:
        """Who is on the way into service in a worn worker's slot."""
        inside = [w for w in self.fleet.of(worn.generation) if w.slot == worn.slot and w.serial != worn.serial]
        return [w for w in inside if not w.state.retiring]

    @invariant()
    def every_wait_has_a_timer(self) -> None:
        coming = {timer for _, timer in self.timers}
        for worker in self.fleet.workers.values():
            if worker.state in DEADLINES:
                assert Timer(DEADLINES[worker.state], worker.serial) in coming, "law 12"
        for generation in self.fleet.generations.values():
            for slot in generation.vacancies:
                assert Timer(TimerKind.RESPAWN, generation.id, slot) in coming, "law 12"

    def teardown(self) -> None:
        """Laws 6, 7, 8, 13, 15, 16, 18: deadlines are kept, the healthy come to serve, in the end all comes to rest."""
        expired = [w.serial for w in self.fleet.workers.values() if w.state is WorkerState.DRAINING]
        for _ in range(6):
            self.time_passes(100.0)
        for serial in expired:
            assert serial in self.killed or serial in self.exited, "law 6"
        self.worn_workers_are_relieved()
        if self.fleet.state is ServiceState.SERVING:
            assert self.fleet.scaling_under_way is None, "law 18: none waits for ever"
        self.everybody_behaves()
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
        assert set(self.scaled) == set(range(1, self.fleet.last_scaling + 1)), "law 16"
        assert not any(r.state.pending or r.state is RolloutState.DRAINING for r in self.fleet.rollouts), "law 7"

    def worn_workers_are_relieved(self) -> None:
        """Law 15: whatever was before, a worn worker serves until its heir does, and in the end each has had one."""
        for _ in range(12):
            for serial in self.known(WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED):
                self.leave(serial)
            before = self.known(WorkerState.SERVING)
            self.all_go_on()
            slots = {w.name for w in self.fleet.workers.values() if w.state is WorkerState.SERVING}
            left = [self.fleet.workers[n] for n in before if self.fleet.workers[n].state is WorkerState.DRAINING]
            serving = self.fleet.serving
            assert all(w.name in slots for w in left if serving and w.generation == serving.id), "law 15"
            self.time_passes(31.0)  # the longest back-off
        if self.fleet.serving is not None:
            assert self.worn(self.fleet.serving.id) == [], "law 15"

    def everybody_behaves(self) -> None:
        """Law 13: whatever was before, a reload whose workers boot and whose predecessors leave comes to its end."""
        for serial in self.known(WorkerState.STOPPING, WorkerState.KILLED):
            self.leave(serial)
        if not self.submit(ReloadAsked(RELEASE, "teardown")):
            return
        number = self.fleet.last_rollout
        for _ in range(6):
            self.all_go_on()
            for serial in self.known(WorkerState.DRAINING, WorkerState.STOPPING):
                self.leave(serial)
        assert self.rollout_state(number) is RolloutState.DONE, "law 13"
        assert len(self.known(WorkerState.SERVING)) == len(self.fleet.workers) == self.fleet.size, "law 13"


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
