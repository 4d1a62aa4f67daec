"""A world in which canaries are watched, and the laws of that."""

from __future__ import annotations

import math
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from stillup.core.commands import Announce, BeginDrain, Command, Kill, Spawn, Terminate
from stillup.core.events import (
    ChannelLost,
    Event,
    LeaderLockKept,
    PromoteAsked,
    ReloadAsked,
    Reported,
    StopAsked,
    TimerFired,
    WorkerBootFailed,
    WorkerResumed,
)
from stillup.core.model import Fleet, Rollout, Worker
from stillup.core.policy import Timer, TimerKind
from stillup.core.states import RolloutState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.core.watch import Verdict
from stillup.core.worker_figures import Answers, WorkerFigures
from tests.core.canary_story import counts, more
from tests.core.story import RELEASE
from tests.core.world import World

BRIEF: Final = Strategy(StrategyKind.CANARY, canary_time=20.0, canary_timeout=60.0)
CANARIES: Final = [
    BRIEF,
    replace(BRIEF, canary=50, canary_percent=True, min_requests=50),
    replace(BRIEF, max_surge=1, max_unavailable=1, canary=2, gated=False, rolls=True),
    replace(BRIEF, max_surge=0, max_unavailable=1, rolls=True),
]
PASSED: Final = (Verdict.PASS, Verdict.PROMOTED, Verdict.UNGATED)


class CanaryLaws(World):
    """A world in which these are enforced."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[int, Answers] = {}
        """By serial, what a worker has said last of what its app has answered."""
        self.of_generation: dict[int, int] = {}
        """By serial, of all that were started."""
        self.watched_from: tuple[float, dict[int, int]] = (0.0, {})
        """When the last watch began, and what was answered by then."""

    # What can happen

    @rule(strategy=st.sampled_from(CANARIES), bad=st.booleans(), looks=st.integers(0, 14))
    def canary_is_watched(self, strategy: Strategy, bad: bool, looks: int) -> None:
        """A canary comes to serve, and both sides work for some time; ``bad``: it answers with errors."""
        self.submit(ReloadAsked(RELEASE, "test", force=True, strategy=strategy))
        self.all_go_on()
        for _ in range(looks):
            self.both_sides_work(bad=bad)

    @rule(bad=st.booleans())
    def both_sides_work(self, bad: bool) -> None:
        """Requests are answered until the next look at a canary."""
        for serial in self.known(WorkerState.SERVING):
            worker = self.fleet.workers[serial]
            errs = bad and self.fleet.plan is not None and worker.generation == self.fleet.plan.generation
            self.submit(Reported(serial, self.worked(serial, errors=30 if errs else 0)))
        self.time_passes(4.0)

    @rule()
    def promote(self) -> None:
        """Somebody passes what is watched; refused when nothing is."""
        moving = self.fleet.plan
        is_watched = moving is not None and moving.state is RolloutState.WATCHING
        assert self.submit(PromoteAsked("test")) is is_watched

    def figures(self, serial: int) -> WorkerFigures:
        """What a worker says counts for all its life, whichever supervisor it says it to."""
        said = super().figures(serial)
        return replace(said, answers=self.answers.get(serial, said.answers))

    def worked(self, serial: int, errors: int = 0) -> WorkerFigures:
        """What a worker says that has answered a hundred requests more."""
        said = self.figures(serial)
        return replace(said, answers=more(said.answers, counts(100, errors)))

    # An account of what was answered

    def listen(self, before: Fleet, event: Event) -> None:
        super().listen(before, event)
        if isinstance(event, Reported):
            self.answers[event.serial] = event.figures.answers

    def note(self, command: Command) -> None:
        super().note(command)
        match command:
            case Spawn(serial=serial, generation=generation):
                self.of_generation[serial] = generation
            case Announce("canary.watching"):
                self.watched_from = (self.now, {serial: said.requests for serial, said in self.answers.items()})
            case _:
                pass

    # What holds

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        super().judge(command, before, event)
        match command:
            case Spawn(generation=generation, slot=slot):
                self.no_more_than_the_canary(generation, slot)
            case BeginDrain(serial=serial) | Terminate(serial) | Kill(serial):
                self.old_stay(before, before.workers[serial], event)
            case Announce("rollout.cut-over", data):
                self.passed_first(int(str(data["rollout"])))
            case Announce("canary.passed", data):
                self.watched_long_enough(int(str(data["rollout"])))
            case _:
                pass

    def no_more_than_the_canary(self, number: int, slot: int) -> None:
        """Law 58, no more than the canary: until that is passed no other worker of its generation is started."""
        moving = self.fleet.plan
        if moving is not None and moving.generation == number and tried(moving):
            assert slot <= canary_of(moving, self.fleet.generations[number].size), "law 58"

    def passed_first(self, number: int) -> None:
        """Law 59, passed first: a canary rollout cuts over after its gate was passed, by its figures or by somebody."""
        rollout = self.fleet.rollout(number)
        assert rollout is not None
        if rollout.strategy.kind is StrategyKind.CANARY:
            assert rollout.watch is not None, "law 59"
            assert rollout.watch.verdict in PASSED, "law 59"

    def watched_long_enough(self, number: int) -> None:
        """Law 60, watched long enough: passed by its figures is what was watched for its time, with enough requests."""
        rollout = self.fleet.rollout(number)
        assert rollout is not None
        strategy, (began, before) = rollout.strategy, self.watched_from
        assert self.now >= began + strategy.canary_time, "law 60"
        more = {serial: said.requests - before.get(serial, 0) for serial, said in self.answers.items()}
        for side in (rollout.previous, rollout.generation):
            ours = sum(more[n] for n in more if n in self.of_generation and self.of_generation[n] == side)
            assert not strategy.gated or ours >= strategy.min_requests, "law 60"

    def old_stay(self, before: Fleet, worker: Worker, event: Event) -> None:
        """Law 61, the old stay: while a canary is on trial none of what serves is told to leave but who is too many."""
        moving = self.fleet.plan
        if moving is None or not tried(moving) or worker.generation != moving.previous or not heard(worker):
            return
        if (now := self.fleet.workers.get(worker.serial)) is not None and now.hung is not None:
            return  # it was found to hang by this very event
        wanted = self.fleet.generations[worker.generation].size
        # In an instant from trial to trial there was another that went, or came.
        same = before.plan is not None and before.plan.id == moving.id
        if same and worker.slot <= wanted and not is_its_own_doing(worker, event):
            others = [one for one in self.fleet.of(worker.generation) if one.serial != worker.serial]
            assert worker.recycle, "law 61"
            assert any(heard(one) and one.slot == worker.slot for one in others), "law 61"

    def judge_event(self, before: Fleet, event: Event) -> None:
        super().judge_event(before, event)
        match event:
            case TimerFired(Timer(TimerKind.GATE, number)):
                moving = self.fleet.plan
                is_watched = moving is not None and moving.id == number and moving.state is RolloutState.WATCHING
                expires = moving.watch.expires if is_watched and moving and moving.watch else math.inf
                assert self.now < expires, "law 62"
            case _:
                pass

    @invariant()
    def a_watch_is_looked_at(self) -> None:
        """Law 62, a watch is looked at: by a timer, until it has a verdict, and by its timeout it has one."""
        moving = self.fleet.plan
        if moving is None or moving.state is not RolloutState.WATCHING:
            return
        assert moving.watch is not None, "law 62"
        due = [at for at, timer in self.timers if timer == Timer(TimerKind.GATE, moving.id)]
        assert due, "law 62"
        assert min(due) <= max(moving.watch.expires, self.now + moving.strategy.canary_time), "law 62"


def heard(worker: Worker) -> bool:
    """Whether a worker counts as one that serves."""
    return worker.state is WorkerState.SERVING and worker.hung is None and worker.heard is not None


def is_its_own_doing(worker: Worker, event: Event) -> bool:
    """Whether a worker is told to leave for what it did itself, or everybody is."""
    match event:
        case StopAsked() | LeaderLockKept():
            return True
        case ChannelLost(serial) | WorkerResumed(serial) | WorkerBootFailed(serial):
            return serial == worker.serial
        case TimerFired(timer) if timer.kind is not TimerKind.GATE:
            return timer.kind is TimerKind.STOP or timer.of == worker.serial
        case _:
            return False


def tried(moving: Rollout) -> bool:
    """Whether a canary has neither been passed nor failed."""
    passed = moving.watch is not None and moving.watch.verdict in PASSED
    return moving.strategy.kind is StrategyKind.CANARY and moving.state is not RolloutState.GOING_BACK and not passed


def canary_of(moving: Rollout, size: int) -> int:
    """How many workers of so many are the canary."""
    wanted = (
        math.ceil(moving.strategy.canary * size / 100) if moving.strategy.canary_percent else moving.strategy.canary
    )
    return min(max(1, wanted), size)
