"""The supervisor's decisions as a story: what happens is told, what it then wants done is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from stillup.core.commands import Announce, Command, SetTimer, Spawn
from stillup.core.crossing import Crossed
from stillup.core.events import (
    BecameReady,
    BeganServing,
    ChannelLost,
    CordonAsked,
    Event,
    Exited,
    HelloSaid,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    StopAsked,
    TimerFired,
    TookOver,
    WorkerBootFailed,
)
from stillup.core.listener_key import ListenerKey
from stillup.core.model import Fleet, Release, Rollout, Worker
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import GenerationState, ServiceState, WorkerState
from stillup.core.step import step
from stillup.core.strategy import Strategy
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import Refused

OLD = Release(app="app:app", python="/usr/bin/python3", directory="/srv/old", label="srv/old")
NEW = replace(OLD, directory="/srv/new", label="srv/new")
BESIDE = Policy().drain_times
"""What each class may take in a drain beside a new generation, unless it was said otherwise."""
WEB, ALSO, SOCKET = (ListenerKey(one, one) for one in ("127.0.0.1:80", "127.0.0.1:81", "unix:/run/app.sock"))
RELEASES = [
    Release(app="app:app", python="/usr/bin/python3", directory=f"/srv/{name}", label=f"srv/{name}", binds=binds)
    for name, binds in (("one", (WEB, ALSO)), ("two", (ALSO, SOCKET)))
]
"""Each listens in part where the other does."""
RELEASE = RELEASES[0]


SAID: tuple[Callable[[int], Event], ...] = (
    lambda n: Spawned(n, 100 + n, 10 * n),
    HelloSaid,
    lambda n: BecameReady(n, "GET / 200"),
    BeganServing,
    lambda n: WorkerBootFailed(n, "import", "no"),
    lambda n: Reported(
        n, WorkerFigures({"idle": 3}, 5, oldest={"stream": 2.5}, crossed=Crossed(3, 2, 1, 0, 0.25)), recycle="old"
    ),
    lambda n: ChannelLost(n, "garbage"),
    lambda n: Exited(n, "exited 1", "last words"),
    lambda n: TimerFired(Timer(TimerKind.DRAIN, n)),
    lambda n: TimerFired(Timer(TimerKind.TERM, n)),
    lambda n: ReloadAsked(NEW if n % 2 else OLD, "test"),
    ScaleAsked,
    lambda n: StopAsked("test", insist=n > 3, now=n > 5),
    lambda n: CordonAsked("test", on=n % 2 == 0),
)
"""What can happen, most of it to the worker of that serial."""


def is_death(worker: Worker) -> bool:
    """Whether the end of a worker is one that nobody ordered; not asked of the code that is judged."""
    return worker.failure is not None or not worker.state.retiring


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
        self.again: dict[int, bool] = {}
        """Of each worker that was started, whether its generation served by then; ``orders`` don't tell."""

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
                    case Spawn():
                        self.again[command.serial] = command.again
                        self.orders.append(replace(command, again=False))
                    case _:
                        self.orders.append(command)

    def live(self, happenings: Iterable[tuple[int, int]]) -> None:
        """Let anything happen: which of SAID, and to which of the workers, counted from the latest."""
        self.reload(OLD)
        for what, who in happenings:
            self.now += 1.5
            with suppress(Refused):
                self.tell(SAID[what](max(1, self.fleet.last_worker - who)))

    def come_to_serve(self) -> None:
        """Let every worker that is on its way into service come a step further, and all the steps."""
        for said in SAID[:4]:
            for serial in tuple(self.fleet.workers):
                with suppress(Refused):
                    self.tell(said(serial))

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

    def fire(self, kind: TimerKind, of: int, slot: int = 0, *, after: Sequence[Event] = ()) -> None:
        """Let a timer that was set come, at its time, right after some events."""
        timer = Timer(kind, of, slot)
        self.now = self.timers[timer]
        self.tell(*after, TimerFired(timer))

    def take_over(self, *alive: int) -> None:
        """Let the supervisor die, and another one find these workers alive; no timer of the first comes any more."""
        self.timers.clear()
        self.tell(TookOver(frozenset(alive)))

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


def cutting_over(size: int = 1) -> Story:
    """Generation 1 serves; every worker of generation 2 was told to accept, and none has said yet that it does."""
    story = serving(size)
    story.reload()
    story.ready(*range(size + 1, 2 * size + 1))
    return story


def draining(size: int = 1) -> Story:
    """Generation 2 serves, generation 1 drains."""
    story = cutting_over(size)
    story.serve(*range(size + 1, 2 * size + 1))
    return story


STANDBY = Policy(strategy=Strategy(standby=100.0))


def standing_by(size: int = 1, policy: Policy = STANDBY) -> Story:
    """Generation 2 serves, generation 1 is paused."""
    story = serving(size, policy)
    story.reload()
    story.ready(*range(size + 1, 2 * size + 1))
    story.serve(*range(size + 1, 2 * size + 1))
    return story


def crashed(release: Release = NEW) -> Story:
    """A reload to a release that crashed twice in its probation, and what was before it serves again."""
    story = serving(1)
    story.reload(release)
    story.ready(2)
    story.serve(2)
    story.exit(1)
    story.die(2, age=1.0)
    story.die(3, age=1.0)
    story.ready(4)
    story.serve(4)
    return story


def spawn(serial: int, generation: int, slot: int, release: Release = OLD) -> Spawn:
    """The order to start a worker under the usual deadlines."""
    return Spawn(serial, generation, slot, release, 60.0, 30.0)
