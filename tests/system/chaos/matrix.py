"""The matrix: each phase of a rollout, who may be hit in it, by which signal, and what has to come of it.

1. A phase is a point in the code at which one process stands still; so it is hit each time, on any machine.
2. Before its cut-over a rollout is aborted by the death of a new worker or of the supervisor, and by nothing else.
3. What may be lost: with a worker that is killed, what it held at that instant; else nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Victim(StrEnum):
    """Who is hit."""

    SUPERVISOR = "supervisor"
    OLD = "old worker"
    NEW = "new worker"


class Blow(StrEnum):
    """What it is hit with."""

    KILL = "SIGKILL"
    STOP = "SIGSTOP"
    BOTH = "both"
    """SIGKILL for a worker and for its supervisor, which does not see it die."""


@dataclass(frozen=True)
class Phase:
    """A point of a rollout: ``who`` stands still there, at ``what``, when the next one is about to happen."""

    name: str
    who: Victim
    what: str


PHASES = (
    Phase("asked", Victim.SUPERVISOR, "the reload is on record, nothing is started"),
    Phase("spawning", Victim.SUPERVISOR, "a worker was started, its pid is not on record"),
    Phase("spawned", Victim.NEW, "it runs, and has not said hello"),
    Phase("hello", Victim.SUPERVISOR, "hello was said, the welcome was not"),
    Phase("listeners", Victim.NEW, "it has its listeners"),
    Phase("booting", Victim.NEW, "its app is imported, not started"),
    Phase("ready", Victim.NEW, "it could serve, and is about to say so"),
    Phase("admitting", Victim.SUPERVISOR, "all are READY, none was told to accept"),
    Phase("accepting", Victim.NEW, "it accepts, and is about to say so"),
    Phase("cutting-over", Victim.SUPERVISOR, "the cut-over is on record, nobody was told to drain"),
    Phase("draining", Victim.OLD, "it was told to drain, and has done nothing yet"),
    Phase("crossing", Victim.OLD, "connections are in the queue, and still open here"),
    Phase("leaving", Victim.OLD, "its drain is over, its app runs"),
)
"""Where in the code each of them is: ``mutations.STANDS_STILL``."""


@dataclass(frozen=True)
class Cell:
    """One field of the matrix."""

    phase: Phase
    victim: Victim
    blow: Blow

    def __str__(self) -> str:
        return f"{self.phase.name}, {self.victim}, {self.blow}"

    @property
    def id(self) -> str:
        """Its name in one word."""
        return f"{self.phase.name}-{self.victim.partition(' ')[0]}-{self.blow.lower().removeprefix('sig')}"

    @property
    def senseless(self) -> str:
        """Why there is no such thing; empty if there is."""
        if self.phase.name == "asked" and self.victim is Victim.NEW:
            return "no new worker was started yet"
        return ""

    @property
    def kills_supervisor(self) -> bool:
        """Whether another supervisor has to be started."""
        return self.blow is Blow.BOTH or (self.victim is Victim.SUPERVISOR and self.blow is Blow.KILL)

    @property
    def costs_connections(self) -> bool:
        """Whether what the victim holds may be lost."""
        return self.blow is not Blow.STOP and self.victim is not Victim.SUPERVISOR

    @property
    def surely_costs(self) -> bool:
        """Whether it holds some for certain: its part of all there are."""
        return self.costs_connections and self.victim is Victim.OLD and self._before("draining")

    @property
    def outcome(self) -> str:
        """How the rollout has to end."""
        kills_new = self.blow is not Blow.STOP and self.victim is Victim.NEW
        if kills_new and self._before("cutting-over"):
            return "aborted"
        # Those that had not accepted leave with their supervisor; those that had go on with the next.
        return "aborted" if self.kills_supervisor and self._before("accepting") else "succeeded"

    def _before(self, name: str) -> bool:
        names = [phase.name for phase in PHASES]
        return names.index(self.phase.name) < names.index(name)


def matrix() -> Iterator[Cell]:
    """Every field, those that make no sense too."""
    for phase in PHASES:
        for victim in Victim:
            yield Cell(phase, victim, Blow.KILL)
            yield Cell(phase, victim, Blow.STOP)
            if victim is not Victim.SUPERVISOR:
                yield Cell(phase, victim, Blow.BOTH)
