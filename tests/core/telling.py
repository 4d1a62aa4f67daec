"""The supervisor's decisions as a story: what happens is told, what it then wants done is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from supervisor.core.commands import Announce, Command, SetTimer, Spawn
from supervisor.core.events import (
    BecameReady,
    BeganServing,
    Event,
    Exited,
    HelloSaid,
    ReloadAsked,
    Spawned,
    Timer,
    TimerFired,
    TimerKind,
)
from supervisor.core.model import Fleet, GenerationState, Policy, Release, Rollout, ServiceState, WorkerState
from supervisor.core.step import step

OLD = Release(app="app:app", python="/usr/bin/python3", directory="/srv/old", label="srv/old")
NEW = replace(OLD, directory="/srv/new", label="srv/new")


class Story:
    """A supervisor without a world."""

    def __init__(self, size: int = 1, policy: Policy | None = None) -> None:
        self.fleet = Fleet(policy=policy or Policy(), size=size)
        self.now = 0.0
        self.orders: list[Command] = []
        """All but timers and announcements, since the last ``tell``."""
        self.news: dict[str, Mapping[str, object]] = {}
        """The announcements since the last ``tell``."""
        self.timers: dict[Timer, float] = {}

    def tell(self, *events: Event) -> None:
        """Let these happen now."""
        self.orders, self.news = [], {}
        for event in events:
            decision = step(self.fleet, event, self.now)
            self.fleet = decision.fleet
            for command in decision.commands:
                match command:
                    case SetTimer(timer, at):
                        self.timers[timer] = at
                    case Announce(kind, data):
                        self.news[kind] = data
                    case _:
                        self.orders.append(command)

    def reload(self, release: Release = NEW) -> None:
        self.tell(ReloadAsked(release, "test"))

    def ready(self, *serials: int) -> None:
        """Let workers come to READY; the pid of worker 3 is 103."""
        self.tell(*(e for n in serials for e in (Spawned(n, 100 + n), HelloSaid(n), BecameReady(n, "GET / 200"))))

    def serve(self, *serials: int) -> None:
        self.tell(*(BeganServing(serial) for serial in serials))

    def exit(self, *serials: int) -> None:
        self.tell(*(Exited(serial, "exited 0") for serial in serials))

    def die(self, serial: int, *, age: float) -> None:
        """Let a worker's process crash when it is that old."""
        self.now = self.fleet.workers[serial].spawned + age
        self.tell(Exited(serial, "killed by SIGSEGV", "core dumped"))

    def fire(self, kind: TimerKind, of: int, slot: int = 0) -> None:
        """Let a timer that was set come, at its time."""
        timer = Timer(kind, of, slot)
        self.now = self.timers[timer]
        self.tell(TimerFired(timer))

    def rollout(self, number: int) -> Rollout:
        rollout = self.fleet.rollout(number)
        assert rollout is not None
        return rollout

    def waiting(self, generation: int = 1) -> dict[int, int]:
        """The slots that wait for their next start, with the deaths in a row that made them wait."""
        return {slot: vacancy.deaths for slot, vacancy in self.fleet.generations[generation].vacancies.items()}

    def state(self) -> ServiceState:
        return self.fleet.state

    def generations(self) -> dict[int, GenerationState]:
        return {number: generation.state for number, generation in self.fleet.generations.items()}

    def workers(self) -> dict[int, WorkerState]:
        return {serial: worker.state for serial, worker in self.fleet.workers.items()}


def begin(size: int = 2, policy: Policy | None = None) -> Story:
    """A supervisor that has just been asked for its first generation."""
    story = Story(size, policy)
    story.reload(OLD)
    return story


def serving(size: int = 2, policy: Policy | None = None) -> Story:
    """A supervisor whose generation 1 serves, with workers 1 to ``size``; a minute has passed."""
    story = begin(size, policy)
    workers = range(1, size + 1)
    story.ready(*workers)
    story.serve(*workers)
    story.now = 60.0
    return story


def spawn(serial: int, generation: int, slot: int, release: Release = OLD) -> Spawn:
    """The order to start a worker under the usual deadlines."""
    return Spawn(serial, generation, slot, release, 60.0, 30.0)
