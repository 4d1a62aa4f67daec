"""The same laws in a world where the supervisor dies, again and again, and another takes its place.

Nothing is done before it is on record, so the record of the dead is the fleet as it was. What it had ordered last may
not have been done; the living come back in any order, or end, and say whether they drain, whatever they were told.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from supervisor.core.events import BecameReady, BeganServing, Event, HelloSaid, ReloadAsked, Resumed, Spawned, TookOver
from supervisor.core.model import Fleet, GenerationState, RolloutState, ServiceState, Worker, WorkerState
from supervisor.core.recovery import LOST, consistent
from supervisor.wire import record
from supervisor.wire.record import Record
from tests.core.test_laws import RELEASE, World

HELD = (WorkerState.ACCEPTING, WorkerState.SERVING, WorkerState.DRAINING)
"""The states of workers that may hold connections."""
BOOTS = (WorkerState.SPAWNED, WorkerState.BOOTING, WorkerState.READY)
"""The states of workers that leave without a supervisor: nobody could have told them to accept."""


class MortalWorld(World):
    """A world whose supervisors die."""

    def __init__(self) -> None:
        super().__init__()
        self.away: set[int] = set()
        """Workers that live and have not come back yet."""

    def may_leave(self, before: Fleet, worker: Worker, event: Event) -> bool:
        match event:
            case TookOver():
                return worker.state in (WorkerState.STOPPING, WorkerState.KILLED, *BOOTS)
            case Resumed(serial, draining):
                ours = serial == worker.serial and (draining or worker.state is WorkerState.DRAINING)
                return ours or super().may_leave(before, worker, BeganServing(serial))
            case _:
                return super().may_leave(before, worker, event)

    @rule(begun=st.booleans())
    def all_are_told_to_accept(self, begun: bool) -> None:
        """Every boot succeeds, and nobody has said yet that it accepts; ``begun``: a rollout began just before."""
        if begun:
            self.submit(ReloadAsked(RELEASE, "test"))
        for serial in self.known(WorkerState.SPAWNED):
            self.submit(HelloSaid(serial))
        for serial in self.known(WorkerState.BOOTING):
            self.submit(BecameReady(serial))

    @precondition(lambda self: self.fleet.state is not ServiceState.STOPPED)
    @rule(data=st.data(), most=st.integers(0, 3), born=st.booleans())
    def supervisor_dies(self, data: st.DataObject, most: int, born: bool) -> None:
        """It dies, some of its workers with it, and another one reads its record; ``born``: nobody is yet to be."""
        self.have_pids(set(WorkerState) if born else set(WorkerState) - {WorkerState.SPAWNED})
        fleet = self.read_back()
        processes = sorted(w.serial for w in fleet.workers.values() if w.pid is not None)
        dead = data.draw(st.sets(st.sampled_from(processes), max_size=most)) if processes else set()
        alive = frozenset(processes) - dead
        self.fleet, self.timers, self.away = fleet, [], set(alive)
        self.crossed = sum((worker.crossed for worker in fleet.workers.values()), fleet.crossed)
        if fleet.state is ServiceState.STOPPING:
            self.left_over = set(fleet.generations)
        assert self.submit(TookOver(alive)), "whatever is on record can be taken over"
        self.exited |= fleet.workers.keys() - alive
        self.check_takeover(fleet, alive)
        if self.fleet.pending is None and self.fleet.serving is None:
            self.submit(ReloadAsked(RELEASE, "start"))

    def have_pids(self, states: set[WorkerState]) -> None:
        """Who has said anything has a process, and so may others."""
        for serial in self.known(*states):
            if self.fleet.workers[serial].pid is None:
                self.submit(Spawned(serial, 1000 + serial))

    def read_back(self) -> Fleet:
        """The fleet as another supervisor finds it."""
        policy, lasting = self.fleet.policy, record.lasting(self.fleet)
        written = record.encode(Record(record.SCHEMA, "boot", "00" * record.KEY, 2, self.fleet))
        fleet = record.decode(written).fleet
        assert fleet == lasting, "law 19: what is on record is what was"
        return replace(fleet, policy=policy)

    def check_takeover(self, before: Fleet, alive: frozenset[int]) -> None:
        """Law 20: what serves serves on, what cannot go on is aborted, and the dead are gone."""
        if before.serving is not None and before.state is ServiceState.SERVING:
            assert self.fleet.serving is not None
            assert self.fleet.serving.id == before.serving.id
            served = [w for w in before.of(before.serving.id) if w.state is WorkerState.SERVING and w.serial in alive]
            assert all(self.fleet.workers[w.serial].state is WorkerState.SERVING for w in served), "law 20"
        assert self.fleet.state in (ServiceState.STARTING, ServiceState.SERVING), "law 20: a stop ends with who did it"
        assert not (before.workers.keys() - alive) & self.fleet.workers.keys(), "law 20"
        ahead = before.pending
        if ahead is not None and ahead.state is RolloutState.BOOTING:
            rollout = self.fleet.rollout(ahead.id)
            assert rollout is not None
            assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, LOST), "law 20"
        started = {w.serial for w in self.fleet.workers.values()} - before.workers.keys()
        boots = [w for w in self.fleet.workers.values() if w.state in BOOTS and w.serial not in started]
        assert boots == [], "law 20: who had not accepted leaves"

    @rule(data=st.data(), draining=st.booleans())
    def worker_comes_back(self, data: st.DataObject, draining: bool) -> None:
        self.away &= self.fleet.workers.keys()
        if self.away:
            self.come_back(data.draw(st.sampled_from(sorted(self.away))), draining=draining)

    @rule()
    def all_come_back(self) -> None:
        """Each doing what it was last told."""
        for serial in sorted(self.away & self.fleet.workers.keys()):
            self.come_back(serial, draining=self.fleet.workers[serial].state is WorkerState.DRAINING)

    def come_back(self, serial: int, *, draining: bool) -> None:
        self.away.discard(serial)
        before = self.fleet.workers[serial].state
        taken = self.submit(Resumed(serial, draining))
        assert taken == (before not in BOOTS)
        worker = self.fleet.workers.get(serial)
        if taken and draining and worker is not None:
            assert worker.state.retiring, "law 21: who drains is not counted on"

    @rule(data=st.data(), draining=st.booleans())
    def worker_comes_back_once_more(self, data: st.DataObject, draining: bool) -> None:
        """A channel may break, and a worker come back to the same supervisor."""
        known = self.known(*HELD)
        if known:
            self.submit(Resumed(data.draw(st.sampled_from(known)), draining))

    @invariant()
    def no_cut_over_is_missed(self) -> None:
        for generation in self.fleet.generations.values():
            if generation.state is GenerationState.ADMITTING:
                assert any(w.state is not WorkerState.SERVING for w in self.fleet.of(generation.id)), "law 22"

    @invariant()
    def whatever_is_could_be_on_record(self) -> None:
        if self.fleet.state is not ServiceState.STOPPED:
            assert consistent(self.fleet), "law 19"


TestLaws = MortalWorld.TestCase
TestLaws.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
