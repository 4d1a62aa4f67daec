"""The laws of the decisions: whatever happens, in whatever order, these hold. Their list is in docs/architecture.md."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant
from msgspec.structs import fields

from stillup.core.commands import (
    Announce,
    BeginAccept,
    BeginDrain,
    BeginPause,
    Command,
    DumpStacks,
    HurryDrain,
    Kill,
    Terminate,
)
from stillup.core.crossing import Crossed
from stillup.core.events import (
    BeganServing,
    ChannelLost,
    Event,
    Exited,
    HeartbeatsDue,
    LeaderLockKept,
    ReloadAsked,
    ScaleAsked,
    Spawned,
    StopAsked,
    TimerFired,
    WorkerBootFailed,
    WorkerResumed,
)
from stillup.core.lifecycle import ENDING, IN_SERVICE
from stillup.core.model import Fleet, Worker
from stillup.core.policy import Timer, TimerKind
from stillup.core.states import GenerationState, RolloutState, ScalingState, ServiceState, WorkerState
from stillup.core.values import replace
from tests.core.boot_laws import BootLaws
from tests.core.hook_laws import HookLaws
from tests.core.leader_laws import LeaderLaws
from tests.core.listener_laws import ListenerLaws
from tests.core.plan_laws import PlanLaws
from tests.core.standby_laws import StandbyLaws
from tests.core.story import RELEASE, is_death

pytestmark = pytest.mark.timeout(3600)  # a thousand histories, each step of which is judged

CUT: Final = (RolloutState.DRAINING, RolloutState.DONE, RolloutState.ROLLED_BACK)
"""The states of a rollout from its cut-over on."""
DEADLINES: Final = {
    WorkerState.SPAWNED: TimerKind.BOOT,
    WorkerState.BOOTING: TimerKind.BOOT,
    WorkerState.ACCEPTING: TimerKind.ADMIT,
    WorkerState.DRAINING: TimerKind.DRAIN,
    WorkerState.STOPPING: TimerKind.TERM,
}
"""The timer behind each state that a worker might never leave by itself. A worker leaves READY with the others."""


class Laws(LeaderLaws, ListenerLaws, HookLaws, StandbyLaws, PlanLaws, BootLaws):
    """A world in which the laws are enforced."""

    # Of each decision

    def judge_given(self, given: Fleet, copy: Fleet) -> None:
        """Law 3, refused changes nothing: neither a refusal nor a decision changes the fleet that it was given."""
        assert given == copy, "law 3"

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        super().judge(command, before, event)
        self.may_hang(command, event)
        if not isinstance(event, LeaderLockKept):
            self.may_be_killed(command, before, event)
        match command:
            case Announce("rollout.cut-over", data):
                self.all_serve_at_the_cut_over(int(str(data["rollout"])))
            case Announce("rollout.rolled-back", data):
                self.crashed_in_its_probation(before, int(str(data["rollout"])))
                self.rolled_back_for_good(before, int(str(data["rollout"])))
            case Announce("scaling.done", data):
                self.as_many_serve_as_were_wanted(int(str(data["scaling"])))
            case BeginAccept(serial):
                self.all_are_ready(before.workers[serial])
            case HurryDrain(every=every) if isinstance(event, Exited):
                assert every, "law 24: what a rollback waits for has no time left"
            case BeginDrain(serial=serial) | BeginPause(serial) | Terminate(serial) | Kill(serial):
                self.old_is_left_alone(before, before.workers[serial], event)

    def old_is_left_alone(self, before: Fleet, worker: Worker, event: Event) -> None:
        """Law 5, the old is left alone: before its cut-over a rollout tells none of it to leave, but by a plan."""
        by_plan = before.plan is not None or self.fleet.plan is not None
        if before.generations[worker.generation].state is GenerationState.SERVING and not by_plan:
            assert self.may_leave(before, worker, event) or self.in_the_way(worker), "law 5"

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
                inside = [w for w in self.fleet.of(worker.generation) if w.slot == worker.slot]
                served = event.serial == worker.serial or any(other.state is WorkerState.SERVING for other in inside)
                return worker.recycle != "" and served
            case Spawned(serial) | WorkerBootFailed(serial) | ChannelLost(serial):
                return serial == worker.serial
            case TimerFired(timer):
                return timer.kind is TimerKind.STOP or timer.of == worker.serial
            case _:
                return False

    def all_serve_at_the_cut_over(self, number: int) -> None:
        """Law 9, all serve first: at its cut-over a worker serves in every slot of the new generation."""
        rollout, generation = self.fleet.rollout(number), self.fleet.serving
        assert rollout is not None
        assert generation is not None
        assert rollout.state in CUT, "law 9"
        assert generation.id == rollout.generation, "law 9"
        serving = [w.slot for w in self.fleet.of(generation.id) if w.state is WorkerState.SERVING]
        assert serving == list(range(1, generation.size + 1)), "law 9"

    def all_are_ready(self, worker: Worker) -> None:
        """Law 10, all are ready first: a worker accepts with all its generation, in one that serves, or by a plan."""
        told_before = worker.state in (WorkerState.ACCEPTING, WorkerState.SERVING)
        if self.fleet.generations[worker.generation].state in IN_SERVICE or told_before:
            return  # the latter is told again, since it has come back
        workers = [one for one in self.fleet.of(worker.generation) if not one.state.retiring]
        assert len(workers) == self.fleet.generations[worker.generation].size, "law 10"
        assert all(one.state is WorkerState.ACCEPTING for one in workers), "law 10"

    def as_many_serve_as_were_wanted(self, number: int) -> None:
        """Law 18, done is there: when a scaling is done as many serve as were wanted, and no more are to stay."""
        scaling, serving = self.fleet.scaling(number), self.fleet.serving
        assert scaling is not None
        assert serving is not None
        serve = [worker for worker in self.fleet.of(serving.id) if worker.state is WorkerState.SERVING]
        assert {worker.slot for worker in serve} == set(range(1, scaling.size + 1)), "law 18"
        # Who is to be replaced may serve beside its replacement, until its turn to leave comes.
        assert sum(not worker.recycle for worker in serve) <= scaling.size, "law 18"
        assert not any(w.slot > scaling.size for w in self.fleet.of(serving.id) if not w.state.retiring), "law 18"

    def may_hang(self, command: Command, event: Event) -> None:
        """Law 20, only silence hangs: a worker is found to, once, if silent for too long by a timely look."""
        if isinstance(command, DumpStacks):
            limit = self.fleet.policy.hang_timeout
            assert isinstance(event, HeartbeatsDue), "law 20"
            assert not event.late, "law 20: a supervisor that was late judges no worker"
            assert limit is not None, "law 20"
            assert event.at - self.heard[command.serial] > limit, "law 20"
            assert command.serial not in self.hung, "law 20: once"

    def judge_silence(self, at: float) -> None:
        """Law 21, no silence is overlooked: after a look every worker that was silent for too long counts as hung."""
        limit = self.fleet.policy.hang_timeout
        assert limit is not None
        for worker in self.fleet.workers.values():
            served = self.fleet.generations[worker.generation].state in IN_SERVICE
            if served and worker.state is WorkerState.SERVING and at - self.heard[worker.serial] > limit:
                assert worker.serial in self.hung, "law 21"

    def may_be_killed(self, command: Command, before: Fleet, event: Event) -> None:
        """Law 22, replaced first: who serves is killed only if it hangs and another serves for it, or by a plan."""
        match command:
            case Kill(serial) if before.workers[serial].state is WorkerState.SERVING:
                assert serial in self.hung, "law 22: a worker that was heard is not killed"
                if before.plan is None and self.fleet.plan is None:
                    assert isinstance(event, BeganServing | WorkerResumed), "law 22: its replacement serves first"
                    assert self.fleet.workers[event.serial].state is WorkerState.SERVING, "law 22"
            case BeginDrain(serial=serial) if isinstance(event, BeganServing | WorkerResumed):
                drained_before = before.workers[serial].state is WorkerState.DRAINING
                assert serial not in self.hung or drained_before, "law 22: a worker that hangs would not hear it"

    def crashed_in_its_probation(self, before: Fleet, number: int) -> None:
        """Law 23, only what crashed is rolled back: for enough deaths in its probation, and to what it replaced."""
        bad = self.fleet.rollout(number)
        cure = self.fleet.rollout(self.fleet.last_rollout)
        assert bad is not None
        assert bad.generation is not None
        assert cure is not None
        assert bad.state is RolloutState.ROLLED_BACK, "law 23"
        assert bad.replaced, "law 23"
        brought = replace(cure.release, binds=bad.replaced.binds)  # else it listens where the one does that serves
        assert (cure.rolls_back, brought) == (number, bad.replaced) != (number, bad.release), "law 23"
        cut = self.cut[bad.generation]
        assert self.now - cut < self.fleet.policy.probation, "law 23"
        deaths = sum(cut <= at for at in self.died[bad.generation])
        assert deaths >= max(2, before.generations[bad.generation].size), "law 23"

    def stays_off(self, event: Event) -> None:
        """Law 33, what was rolled back stays off: only who insists gets it again, or who has changed it."""
        if isinstance(event, ReloadAsked) and not event.force:
            assert event.release not in self.off, "law 33"

    def judge_event(self, before: Fleet, event: Event) -> None:
        super().judge_event(before, event)
        self.stays_off(event)
        self.a_crash_is_not_waited_out(before, event)

    def a_crash_is_not_waited_out(self, before: Fleet, event: Event) -> None:
        """Law 24, a crash is not waited out: what has crashed in its probation, and can be rolled back, is at once.

        A reload that has not begun is no reason to wait, and what drains in the way of the rollback is ended.
        """
        if not isinstance(event, Exited) or not is_death(before.workers[event.serial]):
            return
        generation = before.generations[before.workers[event.serial].generation]
        rollout = next((r for r in reversed(before.rollouts) if r.generation == generation.id), None)
        if generation.state is not GenerationState.SERVING or rollout is None or rollout.replaced is None:
            return
        cut = self.cut.get(generation.id, float("-inf"))  # none where a way back was given up
        deaths = sum(cut <= at for at in self.died.get(generation.id, []))
        due = self.now - cut < before.policy.probation and deaths >= max(2, generation.size)
        able = not self.has_a_cure(before) and rollout.rolls_back is None and rollout.replaced != rollout.release
        if due and able and before.state not in ENDING:
            assert self.rollout_state(rollout.id) is RolloutState.ROLLED_BACK, "law 24"

    def rolled_back_for_good(self, before: Fleet, number: int) -> None:
        """Law 25, no ping-pong: what rolls back is not rolled back, and nothing is once another rollout has begun."""
        bad = self.fleet.rollout(number)
        assert bad is not None
        assert bad.rolls_back is None, "law 25"
        assert not self.has_a_cure(before), "law 25: what is under way is the cure"

    def has_a_cure(self, fleet: Fleet) -> bool:
        """Whether a rollout is on its way that no rollback supersedes."""
        pending = fleet.pending
        if fleet.plan is not None:
            return True
        unbegun = (RolloutState.WAITING, RolloutState.PREPARING)
        return pending is not None and (pending.state not in unbegun or pending.rolls_back is not None)

    # At any time

    @invariant()
    def once_serving_always_serving(self) -> None:
        """Law 1, it serves on: once a generation serves, one does until a stop is asked for."""
        if self.has_served and self.fleet.state is ServiceState.SERVING:
            assert self.fleet.serving is not None, "law 1"

    @invariant()
    def one_rollout_before_its_cut_over(self) -> None:
        """Law 2, one at a time: at most one rollout is before its cut-over, and at most one plan moves."""
        assert sum(r.state.pending for r in self.fleet.rollouts) <= 1, "law 2"
        assert sum(r.goes_by_plan for r in self.fleet.rollouts) <= 1, "law 2"

    @invariant()
    def every_spawn_meets_one_exit(self) -> None:
        """Law 4, one exit: a worker that was spawned is in the fleet, or has had its one exit."""
        assert self.spawned == set(self.fleet.workers) - set(self.known(WorkerState.QUEUED)) | self.exited, "law 4"

    @invariant()
    def every_reload_has_one_outcome(self) -> None:
        """Law 8, one outcome: a rollout is settled once, and until then it is pending."""
        assert all(count == 1 for count in self.settled.values()), "law 8"
        for rollout in self.fleet.rollouts:
            assert rollout.state.pending == (self.settled[rollout.id] == 0), "law 8"

    @invariant()
    def leaving_generations_are_bounded(self) -> None:
        """Law 11, few leave at once: no more generations drain, or are ended, than the policy allows."""
        if self.fleet.state in (ServiceState.STARTING, ServiceState.SERVING):
            ours = [g for g in self.fleet.generations.values() if g.id not in self.left_over]
            away = (GenerationState.DRAINING, GenerationState.STANDBY)
            for states in (away, (GenerationState.STOPPING,)):
                assert sum(g.state in states for g in ours) <= self.fleet.policy.max_draining, "law 11"

    @invariant()
    def every_wait_has_a_timer(self) -> None:
        """Law 12, no wait without a timer: one for who is to leave a state, and a slot that no plan may fill now."""
        coming = {timer for _, timer in self.timers}
        for worker in self.fleet.workers.values():
            if worker.state in DEADLINES:
                assert Timer(DEADLINES[worker.state], worker.serial) in coming, "law 12"
        for generation in self.fleet.generations.values():
            for slot, vacancy in generation.vacancies.items():
                due = self.fleet.plan is not None and vacancy.until <= self.now
                assert due or Timer(TimerKind.RESPAWN, generation.id, slot) in coming, "law 12"

    @invariant()
    def nothing_that_crossed_is_forgotten(self) -> None:
        """Law 14, nothing that crossed is forgotten: the figures of dead and living workers together never fall."""
        now = sum((worker.figures.crossed for worker in self.fleet.workers.values()), self.fleet.crossed)
        for part in fields(Crossed):
            assert getattr(now, part.name) >= getattr(self.crossed, part.name), "law 14"
        self.crossed = now

    @invariant()
    def every_scaling_has_one_outcome(self) -> None:
        """Law 17, one outcome of a scaling: it is settled once, and until then the only one under way."""
        assert all(count == 1 for count in self.scaled.values()), "law 17"
        for scaling in self.fleet.scalings:
            assert (scaling.state is ScalingState.UNDER_WAY) == (self.scaled[scaling.id] == 0), "law 17"
        assert sum(s.state is ScalingState.UNDER_WAY for s in self.fleet.scalings) <= 1, "law 17"

    @invariant()
    def a_rollout_is_rolled_back_once(self) -> None:
        """Law 26, rolled back once: a rollout that was rolled back stays so, and is not a second time."""
        assert all(count == 1 for count in self.rolled_back.values()), "law 26"
        for rollout in self.fleet.rollouts:
            assert (rollout.state is RolloutState.ROLLED_BACK) == (rollout.id in self.rolled_back), "law 26"

    # In the end

    def teardown(self) -> None:
        self.every_drain_ends()
        self.every_plan_ends()
        self.all_are_replaced()
        self.no_scaling_waits_for_ever()
        self.a_healthy_reload_is_done()
        self.no_listener_is_left_over()
        self.all_comes_to_rest()

    def every_drain_ends(self) -> None:
        """Law 6, a drain ends: every worker that drains has exited, or was sent SIGKILL, when its time is over."""
        expired = self.known(WorkerState.DRAINING)
        for _ in range(7):
            self.time_passes(100.0)
        for serial in expired:
            assert serial in self.killed or serial in self.exited, "law 6"

    def all_are_replaced(self) -> None:
        """Law 16, served until replaced: a worker to be replaced serves until another does, and in the end each is."""
        for _ in range(12):
            for serial in self.known(WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED):
                self.leave(serial)
            self.all_are_heard()
            before, self.moved = self.known(WorkerState.SERVING), False
            self.all_go_on()
            slots = {w.name for w in self.fleet.workers.values() if w.state is WorkerState.SERVING}
            left = [self.fleet.workers[n] for n in before if self.fleet.workers[n].state is WorkerState.DRAINING]
            serving = self.fleet.serving
            replaced = all(w.name in slots for w in left if serving and w.generation == serving.id)
            assert replaced or self.moved, "law 16"
            self.time_passes(31.0)  # the longest back-off
        if self.fleet.serving is not None:
            assert self.to_be_replaced(self.fleet.serving.id) == [], "law 16"

    def no_scaling_waits_for_ever(self) -> None:
        """Law 19, no scaling waits for ever: when all deadlines have passed none is under way."""
        if self.fleet.state is ServiceState.SERVING:
            assert self.fleet.scaling_under_way is None, "law 19"

    def a_healthy_reload_is_done(self) -> None:
        """Law 13, a healthy reload is done: one whose workers boot, and those before leave, comes to its end."""
        for serial in self.known(WorkerState.STOPPING, WorkerState.KILLED):
            self.leave(serial)
        if not self.submit(ReloadAsked(RELEASE, "teardown")):
            return
        number = self.fleet.last_rollout
        for _ in range(30):
            self.all_are_heard()
            self.all_go_on()
            self.paused_come_to_rest()
            for serial in self.known(WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED):
                self.leave(serial)
        assert self.rollout_state(number) is RolloutState.DONE, "law 13"
        serve, paused = self.known(WorkerState.SERVING), self.known(WorkerState.PAUSED)
        assert len(serve) == len(self.fleet.workers) - len(paused) == self.fleet.size, "law 13"

    def all_comes_to_rest(self) -> None:
        """Law 7, it comes to rest: after a stop, when every process exits and every timer fires, nothing is left."""
        self.submit(StopAsked("teardown"))
        for _ in range(50):
            self.hooks_end()
            if not self.fleet.workers:
                break
            for serial in tuple(self.fleet.workers):
                if serial in self.fleet.workers:
                    self.leave(serial)
            self.time_passes(100.0)
        assert not self.fleet.workers, "law 7"
        assert not self.fleet.generations, "law 7"
        assert self.fleet.state is ServiceState.STOPPED, "law 7"
        assert self.exit is not None, "law 7"
        assert set(self.settled) == set(range(1, self.fleet.last_rollout + 1)), "law 8"
        assert set(self.scaled) == set(range(1, self.fleet.last_scaling + 1)), "law 17"
        assert not any(r.state.pending or r.state is RolloutState.DRAINING for r in self.fleet.rollouts), "law 7"


class HotReloadLaws(Laws):
    """The same, where a first generation that cannot boot keeps the supervisor waiting, and a stop is announced."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = replace(self.fleet, policy=replace(self.fleet.policy, keep_trying=True, stop_delay=15.0))


TestLaws = Laws.TestCase
TestLaws.settings = settings(stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestHotReloadLaws = HotReloadLaws.TestCase
TestHotReloadLaws.settings = TestLaws.settings
