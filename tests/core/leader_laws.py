"""The laws of leading, in a world whose workers want to, say so falsely, and let go, asked or not."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from stillup.core.commands import BeginLeading, Command, Kill
from stillup.core.events import Event, LeaderLockKept, ReloadAsked, Reported, WorkerResumed
from stillup.core.leader import LEAST_TERM
from stillup.core.lifecycle import UP
from stillup.core.model import Fleet, Worker
from stillup.core.policy import Timer, TimerKind
from stillup.core.states import GenerationState, WorkerState
from stillup.core.strategy import StrategyKind
from stillup.core.values import replace
from stillup.core.watch import Verdict
from stillup.core.worker_figures import Leadership
from tests.core.story import RELEASE
from tests.core.world import World

PASSED = (Verdict.PASS, Verdict.PROMOTED, Verdict.UNGATED)
SERVE = (GenerationState.SERVING, GenerationState.SHIFTING)


class LeaderLaws(World):
    """A world in which these are enforced."""

    def __init__(self) -> None:
        super().__init__()
        self.leads: dict[int, int] = {}
        """By serial, the terms of workers that were told to lead, live, and have not said that they let go."""

    def listen(self, before: Fleet, event: Event) -> None:
        """Keep an account of who may lead."""
        super().listen(before, event)
        if isinstance(event, Reported) and self.leads.get(event.serial) == event.figures.leadership.let_go:
            del self.leads[event.serial]
        self.leads = {serial: term for serial, term in self.leads.items() if serial in self.fleet.workers}

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        super().judge(command, before, event)
        if isinstance(command, BeginLeading):
            self.one_leads(command.serial, command.term)
            if not self.is_told_again(command.serial, before, event):
                self.who_leads_stays(command.serial)
            self.leads[command.serial] = command.term
        if isinstance(event, LeaderLockKept) and isinstance(command, Kill):
            assert command.serial not in self.leads, "who leads may hold the lock"

    def one_leads(self, serial: int, term: int) -> None:
        """Law 39, one leads: a worker is told to once who was told before has let go or ended."""
        assert self.leads.keys() <= {serial}, "law 39"
        assert self.leads.get(serial, term) == term, "law 39: told again, it is of the same term"

    def is_told_again(self, serial: int, before: Fleet, event: Event) -> bool:
        """Whether it comes back and leads by the record, or by its own word where nobody else was told."""
        if not isinstance(event, WorkerResumed) or event.serial != serial:
            return False
        return event.leads or before.term.worker == serial

    def who_leads_stays(self, serial: int) -> None:
        """Law 40, who leads stays: told is who wants to, serves, is not replaced; a new one only for want of old."""
        leader = self.fleet.workers[serial]
        assert not self.is_on_trial(leader), "law 40: nobody of a canary leads"
        state = self.fleet.generations[leader.generation].state
        if state is not GenerationState.SERVING:
            assert state is GenerationState.SHIFTING, "law 40"
            assert not self.could_lead(GenerationState.SERVING, before=self.fleet.term.number - 1), "law 40"
        assert leader.state is WorkerState.SERVING, "law 40"
        assert not leader.recycle, "law 40"
        assert leader.figures.leadership.wants, "law 40"

    def in_the_way(self, worker: Worker) -> bool:
        """Whether a worker was told to leave and leads on, or holds the lock though it does not lead."""
        if worker.serial in self.leads:
            return worker.state.lets_go
        now = self.fleet.workers.get(worker.serial)
        return now is not None and now.failure is not None

    def could_lead(self, *states: GenerationState, before: int | None = None) -> bool:
        """Whether a worker wants to lead that may be told to, in such a generation; not asked of what is judged.

        ``before``: the term after which it would be, if that is not the last one.
        """
        number = before if before is not None else self.fleet.term.number
        return self.fleet.state in UP and any(
            worker.figures.leadership.wants
            and worker.figures.leadership.let_go <= number
            and not worker.recycle
            and worker.state is WorkerState.SERVING
            and self.fleet.generations[worker.generation].state in (states or SERVE)
            and not self.is_on_trial(worker)
            for worker in self.fleet.workers.values()
        )

    def is_on_trial(self, worker: Worker) -> bool:
        """Whether it is of a canary that nobody has passed: it is watched, or has failed and goes back."""
        moving = self.fleet.plan
        if moving is None or moving.generation != worker.generation:
            return False
        passed = moving.watch is not None and moving.watch.verdict in PASSED
        return moving.strategy.kind is StrategyKind.CANARY and not passed

    @invariant()
    def somebody_leads(self) -> None:
        """Law 41, somebody leads: nobody leads for a second at most while a worker could, by a timer."""
        if self.fleet.term.worker is None and self.could_lead():
            assert self.fleet.term.began is not None, "law 41"
            assert Timer(TimerKind.LEADER, 0) in {
                timer for at, timer in self.timers if at <= self.fleet.term.began + LEAST_TERM
            }, "law 41"

    @invariant()
    def a_leader_is_seen_off(self) -> None:
        """Law 42, a leader is seen off: told to leave, it has let go or is killed in time, if another could lead."""
        term = self.fleet.term
        leader = self.fleet.workers.get(term.worker or 0)
        if leader is None or not leader.state.lets_go or self.fleet.state not in UP:
            return
        assert term.due is not None, "law 42"
        if term.due > self.now:
            assert Timer(TimerKind.LEADER, leader.serial) in {timer for _, timer in self.timers}, "law 42"
        elif self.could_lead():
            assert leader.state is WorkerState.KILLED, "law 42"

    # What can happen

    @rule(data=st.data(), wants=st.booleans(), leads=st.booleans())
    def something_is_said_of_leading(self, data: st.DataObject, wants: bool, leads: bool) -> None:
        """A worker wants to lead, or says that it does, whatever it was told; or that it has let go of some term."""
        if self.fleet.workers:
            serial = data.draw(st.sampled_from(sorted(self.fleet.workers)))
            said = self.figures(serial)
            term = self.fleet.term.number
            let_go = data.draw(st.sampled_from([said.leadership.let_go, term, term + 1]))
            self.submit(Reported(serial, replace(said, leadership=Leadership(wants, leads, let_go))))

    @rule()
    def all_want_to_lead(self) -> None:
        """Every worker does."""
        for serial in sorted(self.fleet.workers):
            said = self.figures(serial)
            self.submit(Reported(serial, replace(said, leadership=replace(said.leadership, wants=True))))

    @precondition(lambda self: self.fleet.serving is not None)
    @rule()
    def who_leads_holds_on(self) -> None:
        """It is told to leave, for a reload, and goes on leading; others want to."""
        self.all_want_to_lead()
        self.time_passes(LEAST_TERM)
        self.submit(ReloadAsked(RELEASE, "test"))
        self.all_go_on()
        self.all_want_to_lead()
        self.time_passes(self.fleet.policy.leader_timeout)

    @precondition(lambda self: self.fleet.term.worker in self.fleet.workers)
    @rule()
    def who_leads_lets_go(self) -> None:
        """Unasked, or since it was told to leave."""
        serial = self.fleet.term.worker
        assert serial is not None
        said = self.figures(serial)
        let_go = replace(said.leadership, leads=False, let_go=self.fleet.term.number)
        self.submit(Reported(serial, replace(said, leadership=let_go)))

    @rule(data=st.data())
    def lock_is_kept(self, data: st.DataObject) -> None:
        """Some process holds the lock when another is to be told to lead; it may be a worker's."""
        self.submit(LeaderLockKept(1000 + data.draw(st.integers(1, self.fleet.last_worker + 1))))
