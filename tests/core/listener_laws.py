"""The laws of the listeners that reloads bring and leave out; ``test_laws`` has the others, and tries all of them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from stillup.core.commands import BeginDrain, Command, KeepListeners, Spawn
from stillup.core.events import Event, HeartbeatsDue, ReloadAsked
from stillup.core.lifecycle import ENDING, UNACCEPTED
from stillup.core.listener_key import ListenerKey
from stillup.core.model import Fleet, Release
from stillup.core.states import ServiceState, WorkerState
from tests.core.story import RELEASES
from tests.core.world import World


class ListenerLaws(World):
    """A world in which they are enforced, with an account of its own of what is bound and who has copies."""

    def __init__(self) -> None:
        super().__init__()
        self.open: set[ListenerKey] = set()
        """The listeners that are bound."""
        self.copies: dict[int, set[ListenerKey]] = {}
        """By serial, those of which a worker has a copy."""
        self.handed: dict[int, tuple[ListenerKey, ...]] = {}
        """The same, as it was when they were started."""
        self.lost: set[ListenerKey] = set()
        """Those that no worker was left to return to the next supervisor, which were not bound again since."""
        self.away: set[int] = set()
        """Workers that live, and have lost their supervisor."""

    @precondition(lambda self: self.fleet.serving is not None)
    @rule(release=st.sampled_from(RELEASES), rests=st.booleans())
    def moves(self, release: Release, rests: bool) -> None:
        """A reload changes where the service listens; perhaps until nobody could want the old place back."""
        if not self.submit(ReloadAsked(release, "test", force=True)):
            return
        self.all_go_on()
        for serial in self.known(WorkerState.DRAINING, WorkerState.STOPPING):
            self.leave(serial)
        if rests:
            self.time_passes(31.0)
            self.submit(HeartbeatsDue(self.now))

    def listen(self, before: Fleet, event: Event) -> None:
        super().listen(before, event)
        if isinstance(event, ReloadAsked):
            self.open |= set(event.release.binds)  # they were bound before it was asked for
            self.lost -= self.open

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        super().judge(command, before, event)
        match command:
            case KeepListeners(listeners):
                self.nobodys_listener_is_closed(self.open - set(listeners))
            case Spawn(generation=generation):
                self.handed_to_its_own(before, generation, set(command.listeners))
            case _:
                pass

    def note(self, command: Command) -> None:
        super().note(command)
        match command:
            case Spawn(serial=serial):
                self.handed[serial] = command.listeners
                self.copies[serial] = set(command.listeners)
            case KeepListeners(listeners, workers):
                self.open &= set(listeners)
                for serial in workers:
                    self.copies[serial] &= set(listeners)
            case BeginDrain(serial=serial):
                self.copies[serial] = set()
            case _:
                pass

    def wanted_before(self, fleet: Fleet, generation: int) -> set[ListenerKey]:
        """What generations listen on up to one, and those that may come back in a probation."""
        binds = {key for g in fleet.generations.values() if g.id <= generation for key in g.release.binds}
        for rollout in fleet.rollouts:
            serves = fleet.serving is not None and fleet.serving.id == rollout.generation and not rollout.reason
            # Its cut-over may be of this very decision, and is announced after what is judged.
            since = self.now - self.cut.get(rollout.generation or 0, self.now)
            if serves and rollout.replaced is not None and since < 30.0:
                binds |= set(rollout.replaced.binds)
        return binds

    def nobodys_listener_is_closed(self, closed: set[ListenerKey]) -> None:
        """Law 48, nobody's listener is closed: none that a generation has which lives, comes or may come back."""
        wanted = self.wanted_before(self.fleet, self.fleet.last_generation)
        wanted |= set(self.fleet.pending.release.binds) if self.fleet.pending is not None else set()
        coming = (w.serial for w in self.fleet.workers.values() if w.state in UNACCEPTED and w.serial in self.copies)
        # One that is started by this very decision has none yet.
        assert not closed & wanted.union(*(self.copies.get(serial, ()) for serial in coming)), "law 48"

    def handed_to_its_own(self, before: Fleet, generation: int, handed: set[ListenerKey]) -> None:
        """Law 49, handed to its own: a worker gets what its generation listens on, and nothing of a later one's."""
        assert set(self.fleet.generations[generation].release.binds) & self.open <= handed <= self.open, "law 49"
        assert handed <= self.wanted_before(before, generation) | self.wanted_before(self.fleet, generation), "law 49"

    @invariant()
    def nobody_accepts_on_what_is_closed(self) -> None:
        """Law 50, nobody accepts on what is closed: who serves was told of every listener that ended."""
        for serial in self.known(WorkerState.ACCEPTING, WorkerState.SERVING):
            if self.fleet.state not in ENDING and serial not in self.away:
                assert self.copies[serial] <= self.open, "law 50"

    def no_listener_is_left_over(self) -> None:
        """Law 51, no listener is left over: of a generation that is alone, after its probation, its own are held."""
        self.time_passes(31.0)
        self.submit(HeartbeatsDue(self.now))
        alone = len(self.fleet.generations) == 1 and self.fleet.pending is None
        if alone and self.fleet.serving is not None and self.fleet.state is ServiceState.SERVING:
            coming = (w.serial for w in self.fleet.workers.values() if w.state in UNACCEPTED)
            held = set(self.fleet.serving.release.binds).union(*(self.copies[serial] for serial in coming))
            assert self.open == held - self.lost, "law 51"
