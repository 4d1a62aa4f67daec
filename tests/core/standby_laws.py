"""A world in which what was replaced may be paused, and the laws of that; ``test_laws`` tries all of them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from stillup.core.commands import Announce, BeginAccept, BeginDrain, BeginPause, Command
from stillup.core.events import Event, ReloadAsked, Reported, RollbackAsked
from stillup.core.lifecycle import ENDING
from stillup.core.model import Fleet, Release
from stillup.core.policy import Timer, TimerKind
from stillup.core.rollback import previous_release
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.core.strategy import Strategy
from stillup.core.values import replace
from stillup.errors import Refused
from tests.core.story import RELEASES
from tests.core.world import World

STANDBY = Strategy(standby=20.0)


class StandbyLaws(World):
    """A world in which these are enforced."""

    def __init__(self) -> None:
        super().__init__()
        self.told_to: dict[int, type[Command]] = {}
        """By serial, whether a worker was told last to accept, to pause, or to drain."""
        self.until: dict[int, float] = {}
        """By generation, when its last standby is over."""

    # What can happen

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(release=st.sampled_from(RELEASES), rounds=st.integers(0, 2))
    def pauses(self, release: Release, rounds: int) -> None:
        """A reload is to keep what it replaces, and mostly comes to its end."""
        self.submit(ReloadAsked(release, "test", force=True, strategy=STANDBY))
        for _ in range(rounds):
            self.all_go_on()

    @rule(goes_on=st.booleans())
    def roll_back(self, goes_on: bool) -> None:
        """Somebody asks for what was before."""
        try:
            release = previous_release(self.fleet)
        except Refused:
            return
        self.submit(RollbackAsked(release, release.fingerprint, "test"))
        if goes_on:
            self.all_go_on()

    @rule()
    def paused_come_to_rest(self) -> None:
        """What they held has left, or has ended."""
        for serial in self.known(WorkerState.PAUSED):
            self.submit(Reported(serial, replace(self.figures(serial), at_rest=True)))

    # What holds

    def note(self, command: Command) -> None:
        super().note(command)
        match command:
            case BeginAccept(serial) | BeginPause(serial) | BeginDrain(serial=serial):
                self.told_to[serial] = type(command)
            case Announce("generation.standby", data):
                self.until[int(str(data["generation"]))] = self.now + float(str(data["seconds"]))
            case _:
                pass

    def judge_event(self, before: Fleet, event: Event) -> None:
        super().judge_event(before, event)
        self.it_is_there_at_once(before)

    def it_is_there_at_once(self, before: Fleet) -> None:
        """Law 55, it is there at once: a rollback to a whole standby starts none, and all of that accept now."""
        back, pending = before.standby, self.fleet.pending
        if back is None or pending is None or pending.generation != back.id or before.pending is not None:
            return
        slots = {w.slot for w in before.of(back.id) if w.state is WorkerState.PAUSED}
        if slots >= set(range(1, self.fleet.size + 1)):
            assert self.fleet.last_worker == before.last_worker or self.replaces_a_death(before), "law 55"
            assert pending.state is RolloutState.CUTTING_OVER, "law 55"

    def replaces_a_death(self, before: Fleet) -> bool:
        """Whether all that were started are of the generation that serves: who died there is replaced all the same."""
        new = [worker for serial, worker in self.fleet.workers.items() if serial > before.last_worker]
        return all(self.fleet.generations[w.generation].state is GenerationState.SERVING for w in new)

    @invariant()
    def one_stands_by(self) -> None:
        """Law 52, one stands by: at most one generation, beside one that serves, and some of it is paused."""
        standby = [g for g in self.fleet.generations.values() if g.state is GenerationState.STANDBY]
        assert len(standby) <= 1, "law 52"
        for generation in standby:
            assert self.fleet.serving is not None or self.fleet.state in ENDING, "law 52"
            assert any(w.state is WorkerState.PAUSED for w in self.fleet.of(generation.id)), "law 52"

    @invariant()
    def who_is_paused_takes_nothing(self) -> None:
        """Law 53, who is paused takes nothing: it was told to pause, and since then not to accept, or to lead."""
        for worker in self.fleet.workers.values():
            if worker.state is WorkerState.PAUSED:
                assert self.told_to[worker.serial] is BeginPause, "law 53"
                assert self.fleet.term.worker != worker.serial or self.fleet.term.due is not None, "law 53"
            elif worker.state in (WorkerState.ACCEPTING, WorkerState.SERVING):
                assert self.told_to[worker.serial] is BeginAccept, "law 53"

    @invariant()
    def a_standby_ends(self) -> None:
        """Law 54, a standby ends: a timer is set at its end, or now if that has passed."""
        generation = self.fleet.standby
        if generation is not None:
            ends = max(self.now, self.until[generation.id])
            timer = Timer(TimerKind.STANDBY, generation.id)
            assert any(set_for == timer and at <= ends for at, set_for in self.timers), "law 54"
