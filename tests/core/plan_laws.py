"""A world in which generations also come a worker at a time, and the laws of that."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from stillup.core.commands import Announce, BeginAccept, BeginDrain, Command, Kill, Spawn, TellAdoption, Terminate
from stillup.core.events import (
    AbortAsked,
    Event,
    ReloadAsked,
    Reported,
    TookOver,
    WorkerResumed,
)
from stillup.core.lifecycle import ENDING
from stillup.core.model import Fleet, Generation, Release, Rollout, Worker
from stillup.core.policy import MOST_SERVING
from stillup.core.states import GenerationState, RolloutState, ServiceState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from tests.core.canary_laws import CANARIES, PASSED, CanaryLaws, canary_of, heard, is_its_own_doing, tried
from tests.core.story import RELEASE, RELEASES, is_death

STRATEGIES: Final = [
    Strategy(),
    Strategy(standby=20.0),
    *CANARIES,
    *(Strategy(StrategyKind.ROLLING, surge, missing) for surge, missing in ((1, 0), (0, 1), (2, 1), (0, 2), (1, 7))),
]
"""Some of which not every number of workers allows."""
ACCEPTS: Final = (WorkerState.ACCEPTING, WorkerState.SERVING)
LEAVES: Final = (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED)


class PlanLaws(CanaryLaws):
    """A world in which every strategy is asked for, and its laws are enforced."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: dict[int, bool] = {}
        """By serial, whether a worker reads the adoption queue; nothing is known of one that lost its supervisor."""
        self.planned: set[int] = set()
        """The serials of workers that were started while a plan moved."""
        self.moved = False
        """Whether one has moved, since somebody last looked."""
        self.stays: int | None = None
        """The generation that stays where a way back has just been given up."""

    # What can happen

    @initialize(strategy=st.sampled_from([one for one in STRATEGIES if one.max_surge or one.max_unavailable < 2]))
    def choose(self, strategy: Strategy) -> None:
        """An operator has configured one."""
        self.fleet = replace(self.fleet, policy=replace(self.fleet.policy, strategy=strategy))

    @rule(release=st.sampled_from(RELEASES), force=st.booleans())
    def reload(self, release: Release, force: bool) -> None:
        """Somebody asks for a new generation; refused while the service ends, and to what was rolled back."""
        last = self.fleet.last_rollout
        if self.submit(ReloadAsked(release, "test", force)):
            assert self.fleet.last_rollout == last + 1
        else:
            assert (release in self.off and not force) or self.fleet.state in ENDING or not self.may_be_brought()

    @rule(strategy=st.none() | st.sampled_from(STRATEGIES), rounds=st.integers(0, 4))
    def reload_by(self, strategy: Strategy | None, rounds: int) -> None:
        """Somebody asks for a generation that comes in another way than configured; it comes some steps far."""
        self.submit(ReloadAsked(RELEASE, "test", force=True, strategy=strategy))
        for _ in range(rounds):
            self.go_a_round()

    @rule()
    def abort(self) -> None:
        """Somebody calls off what is under way; refused when nothing is that can be."""
        pending = self.fleet.pending
        taken = self.submit(AbortAsked("test"))
        assert taken == (pending is not None and self.fleet.serving is not None)
        if pending is not None and taken:
            ended = self.fleet.rollout(pending.id)
            assert ended is None or ended.state in (RolloutState.GOING_BACK, RolloutState.ABORTED)

    @rule(rounds=st.integers(1, 6))
    def all_goes_on(self, rounds: int) -> None:
        """Those that come do, and those that are to leave do, some times."""
        for _ in range(rounds):
            self.go_a_round()

    def go_a_round(self) -> None:
        """Who is to leave does, and who comes comes to serve."""
        for serial in self.known(*LEAVES):
            if serial in self.fleet.workers:
                self.leave(serial)
        self.all_go_on()

    def all_are_heard(self) -> None:
        """Those that serve report, as about once a second."""
        for serial in self.known(WorkerState.SERVING):
            if serial in self.fleet.workers:
                self.submit(Reported(serial, self.worked(serial)))
        if self.fleet.plan is not None and self.fleet.plan.state is RolloutState.WATCHING:
            self.time_passes(4.0)

    def may_be_brought(self) -> bool:
        """Whether the strategy that is configured can bring as many workers as are wanted."""
        strategy = self.fleet.policy.strategy
        stuck = strategy.max_surge == 0 and strategy.max_unavailable >= self.fleet.size
        is_bounded = strategy.kind is StrategyKind.ROLLING or strategy.rolls
        return not is_bounded or not stuck

    # An account of who reads the queue

    def listen(self, before: Fleet, event: Event) -> None:
        super().listen(before, event)
        match event:
            case TookOver():
                self.reads = {}
            case WorkerResumed(serial):
                self.reads[serial] = True
            case _:
                pass

    def note(self, command: Command) -> None:
        super().note(command)
        match command:
            case Spawn(serial=serial) if self.fleet.plan is not None:
                self.planned.add(serial)
            case BeginAccept(serial):
                self.reads[serial] = True
            case Announce("rollout.gave-up", data):
                self.stays = int(str(data["serving"]))
            case TellAdoption(serial, on) if serial in self.reads:
                assert self.reads[serial] is not on, "law 45: it is told what is new"
                self.reads[serial] = on
            case _:
                pass

    # What holds

    def judge_event(self, before: Fleet, event: Event) -> None:
        super().judge_event(before, event)
        self.moved |= before.plan is not None or self.fleet.plan is not None
        self.stays = None

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        super().judge(command, before, event)
        match command:
            case Spawn(generation=generation):
                self.has_room(before, generation)
            case BeginDrain(serial=serial) | Terminate(serial) | Kill(serial):
                self.can_be_spared(before, before.workers[serial], event)
            case Announce("rollout.gave-up"):
                self.all_were_asked(before)

    def has_room(self, before: Fleet, number: int) -> None:
        """Law 43, never too many: no plan starts a worker over N + max-surge, or N + C; all processes count."""
        moving = self.fleet.plan
        ours = () if moving is None else (moving.generation, moving.previous if before.plan is not None else None)
        if moving is not None and number in ours:
            assert len(self.fleet.workers) <= self.most(moving), "law 43"

    def can_be_spared(self, before: Fleet, worker: Worker, event: Event) -> None:
        """Law 44, never too few: no plan tells one to leave under N - max-unavailable, nor the last that serves.

        But where it is given up: then those stay that are more. And while all the old stay beside a canary, or where no
        plan moves any more, one leaves that has its replacement: another slot may wait.
        """
        moving = self.fleet.plan or before.plan
        if moving is None or worker.generation not in (moving.previous, moving.generation) or not heard(worker):
            return
        if (now := self.fleet.workers.get(worker.serial)) is not None and now.hung is not None:
            return  # it was found to hang by this very event
        if is_its_own_doing(worker, event):
            return
        # The reload that waited may take its first step in the same decision, within its own bounds.
        if self.stays is not None and (worker.generation != self.stays or self.fleet.plan is None):
            left = [worker for worker in before.workers.values() if self.serves_by_now(worker)]
            most = max(sum(one.generation == number for one in left) for number in (moving.previous, moving.generation))
            # Of those that stay leave the ones that a plan lets wait: too many, or with a replacement that serves.
            assert worker.generation != self.stays or worker.slot > self.fleet.size or worker.recycle, "law 44"
            assert sum(one.generation == self.stays for one in left) == most, "law 44"
            return
        if self.fleet.plan is not None:
            size = self.wanted(moving)
        else:
            assert self.fleet.serving is not None, "law 44"
            size = self.fleet.serving.size
        left = [one for one in self.fleet.workers.values() if heard(one)]
        as_ever = self.fleet.plan is None or beside(moving)
        if as_ever and worker.recycle and any(replaces(one, worker) for one in left):
            return
        both = (moving.previous, moving.generation)
        assert sum(one.generation in both for one in left) >= least(moving, size), "law 44"

    def all_were_asked(self, before: Fleet) -> None:
        """Law 44: and nothing is given up while one that serves by the record has not come back to this supervisor."""
        now = [self.fleet.workers.get(w.serial) for w in before.workers.values() if w.state is WorkerState.SERVING]
        assert all(one is None or one.heard is not None or one.hung is not None for one in now), "law 44"

    @invariant()
    def one_generation_adopts(self) -> None:
        """Law 45, one generation adopts: while two serve, that which is to stay, the other until that serves."""
        moving = self.fleet.plan
        comes = self.comes(moving).id if moving is not None else None
        served = comes is not None and any(heard(one) for one in self.fleet.of(comes))
        for worker in self.fleet.workers.values():
            if worker.state in ACCEPTS and worker.serial in self.reads:
                assert self.reads[worker.serial] is (worker.generation == comes or not served), "law 45"

    @invariant()
    def no_end_of_a_plan_is_missed(self) -> None:
        """Law 46, no end is missed: while a plan moves a slot of those that come is without a worker that serves."""
        moving = self.fleet.plan
        if moving is not None and self.fleet.state is not ServiceState.STOPPED:
            comes = self.comes(moving)
            served = {one.slot for one in self.fleet.of(comes.id) if heard(one)}
            wanted = canary_of(moving, comes.size) if tried(moving) else comes.size
            assert not served >= set(range(1, wanted + 1)) or moving.state is RolloutState.WATCHING, "law 46"

    @invariant()
    def replaced_one_at_a_time(self) -> None:
        """Law 15, one after another: for those to be replaced one replacement is on its way, where no plan moves."""
        for generation in self.fleet.generations.values():
            old = self.to_be_replaced(generation.id)
            # One that serves, and is itself to be replaced, is not on its way: a plan lets both wait for their turn.
            ours = {one.serial for w in old for one in self.replacements(w) if one not in old}
            assert len(ours - self.planned) <= 1, "law 15"

    @invariant()
    def no_slot_is_forgotten(self) -> None:
        """Law 27, no slot is forgotten: where no plan moves each slot of what serves has a worker, or waits for one."""
        serving = [g for g in self.fleet.generations.values() if g.state is GenerationState.SERVING]
        assert len(serving) <= MOST_SERVING == 1, "law 27"
        for generation in serving:
            # The slot of a worker that failed is filled when its exit has brought the end of its output.
            filled = {w.slot for w in self.fleet.of(generation.id) if is_death(w)}
            wanted = set(range(1, generation.size + 1))
            assert self.fleet.plan is not None or filled | set(generation.vacancies) >= wanted, "law 27"

    def every_plan_ends(self) -> None:
        """Law 47, a plan ends: if its workers boot, and those before leave, it has cut over, or gone back."""
        for _ in range(40):
            if self.fleet.plan is None:
                return
            self.all_are_heard()
            self.go_a_round()
            self.time_passes(31.0)  # the longest back-off
        assert self.fleet.plan is None, "law 47"

    def serves_by_now(self, worker: Worker) -> bool:
        """Whether a worker serves, but for what it has just been told."""
        now = self.fleet.workers.get(worker.serial)
        lives = now is not None and now.hung is None and now.heard is not None
        return lives and WorkerState.SERVING in (worker.state, now.state if now is not None else None)

    def most(self, moving: Rollout) -> int:
        """The most processes of workers."""
        size = self.comes(moving).size
        if tried(moving) or (moving.strategy.kind is StrategyKind.CANARY and not moving.strategy.rolls):
            return self.fleet.generations[moving.previous or 0].size + surge(moving, size)
        return self.wanted(moving) + surge(moving, self.wanted(moving))

    def comes(self, moving: Rollout) -> Generation:
        """The generation that is to stay."""
        back = moving.state is RolloutState.GOING_BACK
        return self.fleet.generations[(moving.previous if back else moving.generation) or 0]

    def wanted(self, moving: Rollout) -> int:
        """N: of the two generations the larger, until a new worker has booted; then that which is to stay."""
        both = [self.fleet.generations[number or 0].size for number in (moving.previous, moving.generation)]
        return max(both) if moving.state.pending and moving.ready is None else self.comes(moving).size


def surge(moving: Rollout, size: int) -> int:
    """The most processes over the number that is wanted; one at least where nothing could be spared."""
    passed = was_passed(moving)
    if moving.strategy.kind is StrategyKind.CANARY and not (moving.strategy.rolls and passed):
        return size if passed else canary_of(moving, size)
    allowed = moving.strategy.max_surge
    return allowed if allowed or moving.strategy.max_unavailable < size else 1


def beside(moving: Rollout) -> bool:
    """Whether all of the old generation stay until the cut-over."""
    by_steps = moving.strategy.rolls and not tried(moving)
    return moving.strategy.kind is StrategyKind.CANARY and moving.state.pending and not by_steps


def was_passed(moving: Rollout) -> bool:
    """Whether its canary was."""
    return moving.watch is not None and moving.watch.verdict in PASSED


def replaces(one: Worker, worker: Worker) -> bool:
    """Whether one stays in the slot of another worker."""
    return (one.generation, one.slot) == (worker.generation, worker.slot) and not one.recycle


def least(moving: Rollout, size: int) -> int:
    """The fewest workers that are to serve."""
    is_bounded = moving.strategy.kind is StrategyKind.ROLLING or (moving.strategy.rolls and was_passed(moving))
    return max(1, size - (moving.strategy.max_unavailable if is_bounded else 0))
