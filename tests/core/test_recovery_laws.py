"""The same laws in a world where the supervisor dies, again and again, and another takes its place.

Nothing is done before it is on record, so the record of the dead is the fleet as it was. What it had ordered last may
not have been done; the living come back in any order, or end, and say whether they drain, whatever they were told.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from stillup.core.events import (
    BeganServing,
    Event,
    HookLeft,
    ReloadAsked,
    Spawned,
    TookOver,
    WorkerResumed,
)
from stillup.core.model import Fleet, Worker
from stillup.core.rebuild import consistent
from stillup.core.states import LOST, GenerationState, RolloutState, ServiceState, WorkerState
from stillup.core.values import replace
from stillup.wire import record_format
from stillup.wire.record_format import Record
from tests.core.story import RELEASE
from tests.core.test_laws import Laws

pytestmark = pytest.mark.timeout(3600)  # a thousand histories, each step of which is judged

HELD = (WorkerState.ACCEPTING, WorkerState.SERVING, WorkerState.PAUSED, WorkerState.DRAINING)
"""The states of workers that may hold connections."""
BOOTS = (WorkerState.SPAWNED, WorkerState.BOOTING, WorkerState.READY)
"""The states of workers that leave without a supervisor: nobody could have told them to accept."""


class MortalLaws(Laws):
    """A world whose supervisors die."""

    def may_leave(self, before: Fleet, worker: Worker, event: Event) -> bool:
        match event:
            case TookOver():
                return worker.state in (WorkerState.STOPPING, WorkerState.KILLED, *BOOTS)
            case WorkerResumed(serial, draining, leads):
                ours = serial == worker.serial and (draining or leads or worker.state is WorkerState.DRAINING)
                return ours or super().may_leave(before, worker, BeganServing(serial))
            case _:
                return super().may_leave(before, worker, event)

    @rule(begun=st.booleans())
    def all_are_told_to_accept(self, begun: bool) -> None:
        """Every boot succeeds, and nobody has said yet that it accepts; ``begun``: a rollout began just before."""
        if begun:
            self.submit(ReloadAsked(RELEASE, "test"))
        self.those_started_boot()

    @precondition(lambda self: self.fleet.state is not ServiceState.STOPPED)
    @rule(
        data=st.data(),
        most=st.integers(0, 3),
        born=st.booleans(),
        untold=st.booleans(),
        size=st.none() | st.integers(1, 4),
        hook_lives=st.booleans(),
    )
    def supervisor_dies(
        self, *, data: st.DataObject, most: int, born: bool, untold: bool, size: int | None, hook_lives: bool
    ) -> None:
        """It dies, some of its workers with it, and another one reads its record; ``born``: nobody is yet to be.

        ``untold``: what it had ordered last of listeners was not done.
        """
        self.have_pids(set(WorkerState) - {WorkerState.QUEUED} - (set() if born else {WorkerState.SPAWNED}))
        fleet = self.read_back()
        processes = sorted(w.serial for w in fleet.workers.values() if w.pid is not None)
        dead = data.draw(st.sets(st.sampled_from(processes), max_size=most)) if processes else set()
        alive = frozenset(processes) - dead
        fleet = self.listeners_come_back(fleet, alive, untold=untold)
        self.fleet, self.timers, self.away = fleet, [], set(alive)
        self.crossed = sum((worker.figures.crossed for worker in fleet.workers.values()), fleet.crossed)
        if fleet.state is ServiceState.STOPPING:
            self.left_over = set(fleet.generations)
        assert self.submit(TookOver(alive, size)), "whatever is on record can be taken over"
        if (hook := fleet.hook_under_way) is not None:
            assert self.submit(HookLeft(lives=hook_lives and hook.pid is not None)), "a hook that is left is dealt with"
        assert self.fleet.size == (fleet.size if size is None else size)
        self.exited |= in_being(fleet) - alive
        self.check_takeover(fleet, alive)
        assert self.open >= set(RELEASE.binds), "law 48: they were bound for the reload of this start"
        runs = self.fleet.serving.release if self.fleet.serving is not None else None
        if self.fleet.pending is None and runs != RELEASE:
            self.submit(ReloadAsked(RELEASE, "start"))

    def listeners_come_back(self, fleet: Fleet, alive: frozenset[int], *, untold: bool) -> Fleet:
        """Those who accept return what they hold, of which what is on record is taken; the start's own are there."""
        if untold:
            self.copies |= {serial: set(self.handed[serial]) for serial in alive if self.copies[serial]}
        accept = (WorkerState.ACCEPTING, WorkerState.SERVING, WorkerState.PAUSED)
        returned = {key for n in alive if fleet.workers[n].state in accept for key in self.copies[n]}
        self.open = (returned & set(fleet.listeners)) | set(RELEASE.binds)
        self.lost = (self.lost | set(fleet.listeners)) - self.open
        return replace(fleet, listeners=tuple(sorted(self.open)))

    def have_pids(self, states: set[WorkerState]) -> None:
        """Who has said anything has a process, and so may others."""
        for serial in self.known(*states):
            if self.fleet.workers[serial].pid is None:
                self.submit(Spawned(serial, 1000 + serial))

    def read_back(self) -> Fleet:
        """Law 28, on record as it was: what another supervisor reads is what the fleet was, as far as that lasts."""
        policy, lasting = self.fleet.policy, record_format.lasting(self.fleet)
        written = record_format.encode(Record(record_format.SCHEMA, "boot", "00" * record_format.KEY, 2, self.fleet))
        fleet = record_format.decode(written).fleet
        assert fleet == lasting, "law 28"
        return replace(fleet, policy=policy)

    def check_takeover(self, before: Fleet, alive: frozenset[int]) -> None:
        """Law 30, taken over as it was: what serves serves on, what cannot go on is aborted, and the dead are gone."""
        if before.serving is not None and before.state is ServiceState.SERVING:
            assert self.fleet.serving is not None
            assert self.fleet.serving.id == before.serving.id
            served = [w for w in before.of(before.serving.id) if w.state is WorkerState.SERVING and w.serial in alive]
            assert all(self.fleet.workers[w.serial].state is WorkerState.SERVING for w in served), "law 30"
            paused = [w.serial for w in before.workers.values() if w.state is WorkerState.PAUSED and w.serial in alive]
            assert all(self.fleet.workers[serial].state is WorkerState.PAUSED for serial in paused), "law 30"
        assert self.fleet.state in (ServiceState.STARTING, ServiceState.SERVING), "law 30: a stop ends with who did it"
        assert not (in_being(before) - alive) & self.fleet.workers.keys(), "law 30"
        ahead = before.pending
        if ahead is not None and ahead.state in (RolloutState.PREPARING, RolloutState.BOOTING):
            rollout = self.fleet.rollout(ahead.id)
            assert rollout is not None
            assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, LOST), "law 30"
        started = self.fleet.workers.keys() - in_being(before)
        boots = [w for w in self.fleet.workers.values() if w.state in BOOTS and w.serial not in started]
        assert boots == [], "law 30: who had not accepted leaves"

    @rule(data=st.data(), draining=st.booleans(), paused=st.booleans())
    def worker_comes_back(self, data: st.DataObject, draining: bool, paused: bool) -> None:
        self.away &= self.fleet.workers.keys()
        if self.away:
            serial = data.draw(st.sampled_from(sorted(self.away)))
            self.come_back(serial, draining=draining, paused=paused and not draining)

    @rule()
    def all_come_back(self) -> None:
        """Each doing what it was last told."""
        for serial in sorted(self.away & self.fleet.workers.keys()):
            state = self.fleet.workers[serial].state
            self.come_back(serial, draining=state is WorkerState.DRAINING, paused=state is WorkerState.PAUSED)

    def come_back(self, serial: int, *, draining: bool, paused: bool) -> None:
        """Law 31, a worker that drains is not counted on: one that comes back and says so is on its way out."""
        self.away.discard(serial)
        before = self.fleet.workers[serial].state
        taken = self.submit(WorkerResumed(serial, draining, paused=paused))
        assert taken == (before not in BOOTS)
        worker = self.fleet.workers.get(serial)
        if taken and draining and worker is not None:
            assert worker.state.retiring, "law 31"

    @rule(data=st.data(), draining=st.booleans(), leads=st.booleans(), paused=st.booleans())
    def worker_comes_back_once_more(self, *, data: st.DataObject, draining: bool, leads: bool, paused: bool) -> None:
        """A channel may break, and a worker come back to the same supervisor; it may say falsely that it leads."""
        known = self.known(*HELD)
        if known:
            serial = data.draw(st.sampled_from(known))
            self.submit(WorkerResumed(serial, draining, leads, paused=paused and not draining))

    @invariant()
    def no_cut_over_is_missed(self) -> None:
        """Law 32, no cut-over is missed: a generation that is admitted has a worker that does not serve yet."""
        for generation in self.fleet.generations.values():
            if generation.state is GenerationState.ADMITTING:
                assert any(w.state is not WorkerState.SERVING for w in self.fleet.of(generation.id)), "law 32"

    @invariant()
    def whatever_is_could_be_on_record(self) -> None:
        """Law 29, every fleet can be taken over: none that a decision makes is taken for one that cannot be."""
        if self.fleet.state is not ServiceState.STOPPED:
            assert consistent(self.fleet), "law 29"


def in_being(fleet: Fleet) -> set[int]:
    """The serials of the workers that are not queued for their boot."""
    return {worker.serial for worker in fleet.workers.values() if worker.state is not WorkerState.QUEUED}


TestLaws = MortalLaws.TestCase
TestLaws.settings = settings(stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
