"""The surroundings of a supervisor, for Hypothesis: anything may happen to it, in any order.

``World`` submits events, keeps an account of its own of what was ordered and heard, and hands each decision to
``judge``, which a subclass fills with laws.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from stillup.core.commands import Announce, Command, DumpStacks, Exit, Kill, SetTimer, Spawn
from stillup.core.crossing import Crossed
from stillup.core.events import (
    BecameReady,
    BeganServing,
    ChannelLost,
    CordonAsked,
    Event,
    Exited,
    HeartbeatsDue,
    HelloSaid,
    ParkingLost,
    ProbeAnswered,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    SpawnFailed,
    StopAsked,
    TimerFired,
    TookOver,
    WorkerBootFailed,
    WorkerResumed,
)
from stillup.core.lifecycle import IN_SERVICE
from stillup.core.model import Fleet, Release, Worker
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import RolloutState, WorkerState
from stillup.core.step import step
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import Refused
from stillup.wire.event_feed import make
from tests.core.story import RELEASE, RELEASES, is_death

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIVES = {state for state in WorkerState if not state.retiring} - {WorkerState.QUEUED}
"""The states of workers that were started and not told to end."""


class World(RuleBasedStateMachine):
    """Processes that say anything at any time, timers that fire when they like, and people who ask for anything."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(policy=Policy(max_draining=2, parks=True), size=2)
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
        """When each worker was heard last, or could first be heard again; the laws' own account."""
        self.hung: set[int] = set()
        """Those that were found to hang and were not heard since."""
        self.cut: dict[int, float] = {}
        """By generation, when its cut-over was."""
        self.died: dict[int, list[float]] = {}
        """By generation, when its workers died without having been told to leave."""
        self.rolled_back: Counter[int] = Counter()
        self.off: list[Release] = []  # rolled back, and not served since
        self.left_over: set[int] = set()
        """Generations that drained when their supervisor ended in the middle of a stop: they may be many."""

    # The supervisor's loop, with the effects recorded

    def submit(self, event: Event) -> bool:
        """Let an event happen; whether it was not refused."""
        before = self.fleet
        copy = replace(before, generations=dict(before.generations), workers=dict(before.workers))
        try:
            decision = step(before, event, self.now)
        except Refused:
            return False
        finally:
            self.judge_given(before, copy)
        self.fleet = decision.fleet
        self.listen(before, event)
        self.judge_event(before, event)
        for command in decision.commands:
            assert self.exit is None, "nothing follows the last command"
            self.judge(command, before, event)
            self.note(command)
        self.has_served |= self.fleet.serving is not None
        return True

    def listen(self, before: Fleet, event: Event) -> None:
        """Keep an account of which worker was heard when, and of which died."""
        match event:
            case BeganServing(serial) | Reported(serial) | WorkerResumed(serial):
                self.heard[serial] = self.now
                self.hung.discard(serial)
            case TookOver():
                self.heard, self.hung = {}, set()  # all clocks start anew with the first look
            case HeartbeatsDue(late=late):
                self.heard = dict.fromkeys(self.heard, self.now) if late else self.heard
                for worker in before.workers.values():
                    served = before.generations[worker.generation].state in IN_SERVICE
                    if served or worker.state is WorkerState.PAUSED:
                        self.heard.setdefault(worker.serial, self.now)
            case Exited(serial):
                worker = before.workers[serial]
                # What dies while a plan moves is no fault of what served, and what the plan brings has its own end.
                serves = before.generations[worker.generation].state in IN_SERVICE
                if is_death(worker) and serves and before.plan is None:
                    self.died.setdefault(worker.generation, []).append(self.now)
            case _:
                pass

    def note(self, command: Command) -> None:
        """Keep an account of what was ordered."""
        match command:
            case Spawn(serial=serial):
                assert serial not in self.spawned
                self.spawned.add(serial)
            case SetTimer(timer, at):
                assert at >= self.now
                self.timers.append((at, timer))
            case DumpStacks(serial):
                self.hung.add(serial)
            case Kill(serial):
                self.killed.add(serial)
            case Exit(code):
                self.exit = code
            case Announce(kind, data):
                make(kind, data, seq=1, at=NOW, monotonic=self.now)  # raises where it has no such shape
                self.note_outcome(kind, {name: int(str(data[name])) for name in _NUMBERS if data.get(name) is not None})
            case _:
                pass

    def note_outcome(self, kind: str, numbers: dict[str, int]) -> None:
        """Keep an account of the outcomes that were announced."""
        match kind:
            case "rollout.cut-over":
                self.settled[numbers["rollout"]] += 1
                self.cut[numbers["generation"]] = self.now
                self.off = [one for one in self.off if one != self.fleet.generations[numbers["generation"]].release]
            case "rollout.aborted":
                self.settled[numbers["rollout"]] += 1
            case "rollout.rolled-back":
                self.rolled_back[numbers["rollout"]] += 1
                self.off.append(self.fleet.generations[numbers["generation"]].release)
            case "scaling.done" | "scaling.aborted":
                self.scaled[numbers["scaling"]] += 1
            case _:
                pass

    def judge_given(self, given: Fleet, copy: Fleet) -> None:
        """Judge what has become of the fleet that a decision was given; ``copy`` is what it was."""

    def judge_event(self, before: Fleet, event: Event) -> None:
        """Judge what has become of the fleet by an event that was not refused."""

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        """Judge a command that was given for an event in the fleet as it was before that."""

    def judge_silence(self, at: float) -> None:
        """Judge which workers count as hung after a look at a time when nobody was late."""

    # What is there

    def rollout_state(self, number: int) -> RolloutState | None:
        """The state of a rollout, unless it is forgotten."""
        rollout = self.fleet.rollout(number)
        return rollout.state if rollout else None

    def known(self, *states: WorkerState) -> list[int]:
        """The workers that are in one of these states."""
        return [w.serial for w in self.fleet.workers.values() if w.state in states]

    def figures(self, serial: int) -> WorkerFigures:
        """What a worker says that has no news; it wants to lead as before."""
        said = self.fleet.workers[serial].figures if serial in self.fleet.workers else WorkerFigures()
        return replace(said, classes={"idle": 1})

    def to_be_replaced(self, generation: int) -> list[Worker]:
        """The workers of a generation that serve and are to be replaced."""
        return [w for w in self.fleet.of(generation) if w.recycle and w.state is WorkerState.SERVING]

    def replacements(self, old: Worker) -> list[Worker]:
        """The workers that are on the way into service in another one's slot."""
        inside = [w for w in self.fleet.of(old.generation) if w.slot == old.slot and w.serial != old.serial]
        return [w for w in inside if not w.state.retiring]

    # What can happen

    @initialize(served=st.booleans())
    def begin(self, served: bool) -> None:
        """Half of all histories begin where most of them happen: while a generation serves."""
        if served:
            self.submit(ReloadAsked(RELEASE, "start"))
            self.all_go_on()
            assert self.fleet.serving is not None

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        """The timers that are due fire, in their order."""
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
    def heartbeats_are_due(self, late: bool, ago: float, seconds: float, data: st.DataObject) -> None:
        """Some are heard and some are not; the look at it may be an old one."""
        self.time_passes(seconds)
        serving = self.known(WorkerState.SERVING)
        heard = data.draw(st.sets(st.sampled_from(serving))) if serving else set()
        for serial in sorted(heard):
            self.submit(Reported(serial, self.figures(serial)))
        assert self.submit(HeartbeatsDue(self.now - ago, late=late)), "a look is never refused"
        if not late:
            self.judge_silence(self.now - ago)

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(reload=st.booleans())
    def all_hang(self, reload: bool) -> None:
        """No worker is heard for too long; then replacements come to serve, and perhaps another generation."""
        self.time_passes(61.0)
        self.submit(HeartbeatsDue(self.now))
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
            serial = next((w.serial for w in self.fleet.of(serving.id) if w.state in LIVES), None)
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
        if not self.submit(ReloadAsked(release, "test", force=True)):
            return
        self.all_go_on()
        if asked:
            self.submit(ReloadAsked(RELEASE, "test"))
        self.workers_crash(most, seconds)
        if self.rolled_back:
            self.all_go_on()
            self.workers_crash(most, 0.0)

    @precondition(lambda self: self.fleet.last_rollout > 2)
    @rule(insist=st.booleans())
    def stop(self, insist: bool) -> None:
        """Somebody asks the service to end."""
        self.submit(StopAsked("test", insist))

    @rule(on=st.booleans())
    def cordon(self, on: bool) -> None:
        """Somebody asks that no new clients be sent, or that they be sent again."""
        if self.submit(CordonAsked("test", on)):
            assert (self.fleet.cordoned is not None) is on

    @rule()
    def parking_is_lost(self) -> None:
        """The service manager does not keep the queue."""
        assert self.submit(ParkingLost()) and not self.fleet.policy.parks, "never refused"  # noqa: PT018 - one claim

    @rule(size=st.integers(0, 4))
    def scale(self, size: int) -> None:
        """Somebody asks for another number of workers."""
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
        """Every worker that is on its way into service comes a step further, and all the steps."""
        for _ in range(len(self.known(WorkerState.QUEUED))):
            self.those_started_boot()
        self.those_started_boot()
        for serial in self.known(WorkerState.ACCEPTING):
            self.submit(BeganServing(serial))

    def those_started_boot(self) -> None:
        """Who has a process becomes READY; perhaps the next one boots then."""
        for serial in self.known(WorkerState.SPAWNED):
            self.submit(HelloSaid(serial))
        for serial in self.known(WorkerState.BOOTING):
            self.submit(BecameReady(serial))

    @rule(data=st.data())
    def anything_is_said(self, data: st.DataObject) -> None:
        """Any word, about any worker, known or not, in any state."""
        serial = data.draw(st.integers(1, self.fleet.last_worker + 2))
        events: list[Event] = [
            Spawned(serial, 7),
            HelloSaid(serial),
            BecameReady(serial),
            ProbeAnswered(serial, 503),
            BeganServing(serial),
            WorkerBootFailed(serial, "import", "no"),
            ChannelLost(serial, "garbage"),
            *[Reported(serial, self.figures(serial), recycle=reason) for reason in ("", "old")],
            *[TimerFired(Timer(kind, serial, 1)) for kind in TimerKind],
        ]
        self.submit(data.draw(st.sampled_from(events)))

    @rule(most=st.integers(1, 4))
    def workers_ask_to_be_replaced(self, most: int) -> None:
        """The latest of those that serve have reached a limit."""
        for serial in self.known(WorkerState.SERVING)[-most:]:
            self.submit(Reported(serial, self.figures(serial), recycle="old"))

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(how=st.sampled_from([WorkerBootFailed(0, "import", "no"), ChannelLost(0, "garbage"), Exited(0, "exited 1")]))
    def replacement_fails(self, how: WorkerBootFailed | ChannelLost | Exited) -> None:
        """Each worker that is on its way to the slot of one to be replaced does not come to serve."""
        assert self.fleet.serving is not None
        for old in self.to_be_replaced(self.fleet.serving.id):
            for replacement in self.replacements(old):
                if isinstance(how, Exited):
                    self.leave(replacement.serial)
                else:
                    self.submit(replace(how, serial=replacement.serial))

    @rule(data=st.data(), more=st.builds(Crossed, *[st.integers(0, 9)] * 4, st.floats(0.0, 9.0)))
    def more_has_crossed(self, data: st.DataObject, more: Crossed) -> None:
        """A worker's report, whose figures of its whole life only rise."""
        if self.fleet.workers:
            worker = self.fleet.workers[data.draw(st.sampled_from(sorted(self.fleet.workers)))]
            said = self.figures(worker.serial)
            self.submit(Reported(worker.serial, replace(said, crossed=said.crossed + more)))

    @rule(data=st.data())
    def worker_exits(self, data: st.DataObject) -> None:
        """Any process may end at any time."""
        if self.fleet.workers:
            self.leave(data.draw(st.sampled_from(sorted(self.fleet.workers))))

    def leave(self, serial: int) -> None:
        """Let a worker's process end, or not begin; one that is queued has none."""
        worker = self.fleet.workers[serial]
        if worker.state is WorkerState.QUEUED:
            return
        event = Exited(serial, "exited 1", "tail") if worker.pid is not None else SpawnFailed(serial, "no memory")
        assert self.submit(event), "an exit is never refused"
        assert serial not in self.exited
        self.exited.add(serial)


_NUMBERS = ("rollout", "generation", "scaling")  # what announcements are about
