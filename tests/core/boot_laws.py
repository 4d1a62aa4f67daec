"""The laws of how many workers boot at once; a part of the rule machine in ``test_laws.py``."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from stillup.core.commands import Command, Spawn
from stillup.core.events import Event
from stillup.core.model import Fleet
from stillup.core.states import ServiceState, WorkerState
from stillup.core.values import replace
from tests.core.world import World

BOOTING = (WorkerState.SPAWNED, WorkerState.BOOTING)


class BootLaws(World):
    """A world in which few, or all, may boot at once, and its laws are enforced."""

    @initialize(places=st.sampled_from([1, 2, 1000]))
    def choose_places(self, places: int) -> None:
        """An operator has configured how many."""
        self.fleet = replace(self.fleet, policy=replace(self.fleet.policy, boot_concurrency=places))

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        super().judge(command, before, event)
        if isinstance(command, Spawn):
            self.few_boot_at_once(command)

    def few_boot_at_once(self, command: Spawn) -> None:
        """Law 56, few boot at once: none starts over boot-concurrency, but for one of what is to serve if none does.

        What is to is the generation that did, or what a rollback brings.
        """
        serving, pending = self.fleet.serving, self.fleet.pending
        serves = any(w.state is WorkerState.SERVING and w.hung is None for w in self.fleet.workers.values())
        returns = pending is not None and pending.rolls_back is not None and pending.generation == command.generation
        in_need = serving is not None and (serving.id == command.generation or returns) and not serves
        assert len(self.known(*BOOTING)) <= self.fleet.policy.boot_concurrency + in_need, "law 56"

    @invariant()
    def no_place_is_left_empty(self) -> None:
        """Law 57, no place is left empty: while a worker is queued, as many boot as may."""
        if self.known(WorkerState.QUEUED) and self.fleet.state is not ServiceState.STOPPED:
            assert len(self.known(*BOOTING)) >= self.fleet.policy.boot_concurrency, "law 57"
