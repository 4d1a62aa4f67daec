"""The words of the service: releases, generations, workers, rollouts and the fleet that holds them.

Everything here is a frozen value. ``Fleet`` is the only state that the supervisor has; ``core.rollout.step``
turns one into the next. Times are seconds on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from supervisor.core.crossing import Crossed


class ServiceState(StrEnum):
    """What the service as a whole does."""

    STARTING = "starting"
    """No generation has served yet."""
    SERVING = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"


class GenerationState(StrEnum):
    """Where a generation stands."""

    BOOTING = "booting"
    """Its workers import and start the app; none accepts."""
    ADMITTING = "admitting"
    """All were READY; all were told to accept, not all have said that they do."""
    SERVING = "serving"
    DRAINING = "draining"
    """It takes nothing new and leaves when what it holds is finished."""
    STOPPING = "stopping"
    """It never served, and is being ended."""
    GONE = "gone"


class WorkerState(StrEnum):
    """Where a worker process stands."""

    SPAWNED = "spawned"
    """The process was asked for; it has not said hello."""
    BOOTING = "booting"
    """It takes the listeners, imports the app, starts it up and probes it."""
    READY = "ready"
    """It could serve and accepts nothing yet."""
    ACCEPTING = "accepting"
    """It was told to accept and has not said that it does."""
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    """SIGTERM was sent."""
    KILLED = "killed"
    """SIGKILL was sent."""
    EXITED = "exited"

    @property
    def retiring(self) -> bool:
        """Whether the worker is on its way out."""
        return self in _RETIRING


_RETIRING = frozenset({WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED, WorkerState.EXITED})


class RolloutState(StrEnum):
    """Where a rollout stands. ``ABORTED`` and ``ROLLED_BACK`` are ends, and ``DONE`` is one after its probation."""

    WAITING = "waiting"
    """Accepted; too many older generations still drain."""
    BOOTING = "booting"
    CUTTING_OVER = "cutting-over"
    DRAINING = "draining"
    """The new generation serves: the rollout has succeeded. The old one still drains."""
    DONE = "done"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled-back"
    """It succeeded, but its workers crashed in its probation: another rollout brings back the release before it."""

    @property
    def pending(self) -> bool:
        """Whether the cut-over is still ahead."""
        return self in _PENDING


_PENDING = frozenset({RolloutState.WAITING, RolloutState.BOOTING, RolloutState.CUTTING_OVER})


class ScalingState(StrEnum):
    """Where a request for more or fewer workers stands. ``DONE`` and ``ABORTED`` are ends."""

    UNDER_WAY = "under-way"
    DONE = "done"
    """As many serve as were wanted, and whoever is beyond has been told to leave."""
    ABORTED = "aborted"
    """It was not waited for any longer; as many are still wanted unless a later request says otherwise."""


@dataclass(frozen=True, slots=True)
class Release:
    """What to run, resolved once and kept for the life of its generation."""

    app: str
    """``module:attribute``, as uvicorn takes it."""
    python: str
    """Absolute path of the interpreter."""
    directory: str
    """Absolute, symlinks resolved: the workers' working directory."""
    app_dir: str = ""
    """Absolute: where the app is imported from."""
    label: str = ""
    """How people call it: the last parts of the directory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    """uvicorn's worker options, by uvicorn's names."""
    health_path: str = ""
    """What the health probe asks for; without it there is no probe."""
    health_host: str = "localhost"
    max_worker_age: float | None = None
    """Seconds after which a worker is worn."""
    max_worker_rss: int | None = None
    """Bytes in memory from which on a worker is worn."""
    fingerprint: str = ""
    """Of the code in the directory, as it was when the release was resolved."""
    whole: bool = True
    """Whether all of this is known; of an older one a record keeps only what is shown."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The deadlines and limits that an operator chose."""

    boot_timeout: float = 60.0
    """Seconds from spawn to READY."""
    admit_timeout: float = 10.0
    """Seconds from ACCEPT to SERVING."""
    drain_timeout: float = 30.0
    """Seconds that a worker gives itself to drain."""
    grace: float = 5.0
    """Seconds past its own deadline before a worker is sent SIGTERM, and from SIGTERM to SIGKILL."""
    shutdown_timeout: float = 10.0
    """Seconds from SIGTERM to SIGKILL for a worker that never served: its app may have started, and shuts down."""
    max_draining: int = 2
    """Generations that may drain at the same time, and that may be ended at the same time without having served."""
    hang_timeout: float | None = 60.0
    """Seconds without a word after which a worker that serves is hung; None: none ever is."""
    probation: float = 30.0
    """Seconds after its cut-over in which a release that crashes is rolled back; 0: none is."""
    parks: bool = False
    """Whether the adoption queue outlives the supervisor: what is idle at a stop is put there for the next."""
    keep_trying: bool = False
    """Whether a first generation that cannot boot leaves the supervisor waiting for the next reload (hot reload)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker did not come to serve."""

    stage: str
    """``spawn``, ``hello``, ``listeners``, ``options``, ``import``, ``lifespan``, ``probe``, ``boot``, ``accept``,
    ``channel`` or ``exit``."""
    message: str
    worker: str = ""
    pid: int | None = None
    output: str = ""
    """The tail of the worker's own stdout and stderr."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of a generation. ``serial`` is its identity; ``slot`` outlives it."""

    serial: int
    generation: int
    slot: int
    state: WorkerState
    spawned: float
    pid: int | None = None
    started: int = 0
    """Clock ticks from the host's start to its process's: with the pid, the process's identity."""
    comes_back: bool = True
    """Whether it comes back when it has lost its supervisor; those of the first protocol drain then."""
    deaths: int = 0
    """How many workers of this slot died young in a row before this one."""
    worn: str = ""
    """Why it asks to be replaced; empty while it does not."""
    worn_at: float = 0.0
    """When it first did."""
    heard: float | None = None
    """When it was last heard since it serves; None if its clock has yet to start."""
    hung: float | None = None
    """Since when it has not been heard, once it was found to be hung; None again when it is heard."""
    failure: Failure | None = None
    connections: Mapping[str, int] = field(default_factory=dict)
    """Open connections by class, as last reported."""
    requests: int = 0
    oldest: Mapping[str, float] = field(default_factory=dict)
    """While it drains: since when the oldest connection of each class has been of it."""
    crossed: Crossed = field(default_factory=Crossed)

    @property
    def name(self) -> str:
        """How people call it: ``3.1`` is slot 1 of generation 3."""
        return f"{self.generation}.{self.slot}"


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A slot that waits for its next worker."""

    deaths: int
    """How many workers of it died young in a row, or wore out young."""
    until: float
    """When it is filled."""
    worn: str = ""
    """Why who serves in it meanwhile is worn; empty if it waits for a death."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The workers that run one release."""

    id: int
    state: GenerationState
    release: Release
    size: int
    """Workers wanted: slots 1 to ``size``."""
    vacancies: Mapping[int, Vacancy] = field(default_factory=dict)
    """Slots that wait for their respawn timer."""
    drained_from: float | None = None
    """When it began to drain."""
    crossed: Crossed = field(default_factory=Crossed)
    """Of those of its workers that are gone."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One replacement of the serving generation. It has one outcome: its cut-over, or that it was aborted."""

    id: int
    state: RolloutState
    release: Release
    why: str
    asked: float
    generation: int | None = None
    """The new generation, once it was begun."""
    previous: int | None = None
    """The generation that served at the cut-over."""
    replaced: Release | None = None
    """What that one ran."""
    rolls_back: int | None = None
    """The rollout that this one takes back."""
    deaths: int = 0
    """How many workers of its generation died in its probation without being told to leave."""
    probe: str = ""
    """What the health probe of the last READY worker saw; empty without one."""
    begun: float | None = None
    ready: float | None = None
    cut: float | None = None
    ended: float | None = None
    crossed: Crossed = field(default_factory=Crossed)
    """Of the previous generation, once that is gone."""
    reason: str = ""
    """Of an aborted one: ``superseded``, ``called-off``, ``stopping``, or the failure's stage; of one that was rolled
    back: ``crashed``.

    Of one that crashed and could not be rolled back: ``release-overwritten``.
    """
    failure: Failure | None = None
    """Why it was aborted, or how the last worker died before it was rolled back."""

    @property
    def previous_release(self) -> str:
        """How people call what it replaced; empty if that was nothing."""
        return self.replaced.label if self.replaced is not None else ""


@dataclass(frozen=True, slots=True)
class Scaling:
    """One request for more or fewer workers. It has one outcome."""

    id: int
    state: ScalingState
    generation: int
    """The one that served when it was asked."""
    size: int
    """Workers wanted."""
    previous: int
    """Workers that were wanted before."""
    asked: float
    last_worker: int
    """The serial of the last worker when it was asked: who has a higher one was started since."""
    ended: float | None = None
    reason: str = ""
    """Of an aborted one: ``superseded``, ``stopping`` or the failure's stage."""
    failure: Failure | None = None


T = TypeVar("T", Rollout, Scaling)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All that the supervisor knows."""

    policy: Policy = field(default_factory=Policy)
    size: int = 1
    """Workers wanted of each new generation."""
    state: ServiceState = ServiceState.STARTING
    exit_code: int = 0
    generations: Mapping[int, Generation] = field(default_factory=dict)
    workers: Mapping[int, Worker] = field(default_factory=dict)
    rollouts: tuple[Rollout, ...] = ()
    """Oldest first; ended ones are kept up to ``HISTORY``."""
    scalings: tuple[Scaling, ...] = ()
    """Oldest first, kept like rollouts."""
    crossed: Crossed = field(default_factory=Crossed)
    """Of all workers that are gone."""
    last_generation: int = 0
    last_worker: int = 0
    last_rollout: int = 0
    last_scaling: int = 0

    def of(self, generation: int) -> Iterator[Worker]:
        """The workers of a generation, by slot."""
        mine = (worker for worker in self.workers.values() if worker.generation == generation)
        return iter(sorted(mine, key=lambda worker: (worker.slot, worker.serial)))

    def rollout(self, number: int) -> Rollout | None:
        """The rollout of that number, unless it is unknown or forgotten."""
        return next((rollout for rollout in self.rollouts if rollout.id == number), None)

    def scaling(self, number: int) -> Scaling | None:
        """The request for more or fewer workers of that number, unless it is unknown or forgotten."""
        return next((scaling for scaling in self.scalings if scaling.id == number), None)

    @property
    def scaling_under_way(self) -> Scaling | None:
        """The one request for more or fewer workers that has no outcome yet."""
        return next((scaling for scaling in self.scalings if scaling.state is ScalingState.UNDER_WAY), None)

    def crossed_of(self, generation: int) -> Crossed:
        """The crossing's figures of a generation: of its workers that are gone, and of those that are left."""
        known = self.generations.get(generation)
        before = known.crossed if known is not None else Crossed()
        return sum((worker.crossed for worker in self.of(generation)), before)

    @property
    def serving(self) -> Generation | None:
        """The generation that serves."""
        return next((g for g in self.generations.values() if g.state is GenerationState.SERVING), None)

    @property
    def pending(self) -> Rollout | None:
        """The one rollout whose cut-over is ahead."""
        return next((rollout for rollout in self.rollouts if rollout.state.pending), None)

    def count(self, state: GenerationState) -> int:
        """How many generations are in that state."""
        return sum(generation.state is state for generation in self.generations.values())

    def with_worker(self, worker: Worker) -> Fleet:
        """The same fleet with that worker put in or replaced."""
        return replace(self, workers={**self.workers, worker.serial: worker})

    def without_worker(self, serial: int) -> Fleet:
        """The same fleet without that worker."""
        return replace(self, workers={key: value for key, value in self.workers.items() if key != serial})

    def with_generation(self, generation: Generation) -> Fleet:
        """The same fleet with that generation put in or replaced; one that is gone is left out."""
        rest = {key: value for key, value in self.generations.items() if key != generation.id}
        if generation.state is not GenerationState.GONE:
            rest[generation.id] = generation
        return replace(self, generations=rest)

    def with_rollout(self, rollout: Rollout) -> Fleet:
        """The same fleet with that rollout put in or replaced, and the oldest ended ones forgotten."""
        return replace(self, rollouts=_remember(self.rollouts, rollout))

    def with_scaling(self, scaling: Scaling) -> Fleet:
        """The same with a request for more or fewer workers."""
        return replace(self, scalings=_remember(self.scalings, scaling))


def _remember(known: tuple[T, ...], new: T) -> tuple[T, ...]:
    rest = [one if one.id != new.id else new for one in known]
    if new.id not in {one.id for one in known}:
        rest.append(new)
    ended = [one.id for one in rest if one.state in _ENDED]
    forgotten = set(ended[: max(0, len(ended) - HISTORY)])
    return tuple(one for one in rest if one.id not in forgotten)


_ENDED = frozenset(
    {RolloutState.DONE, RolloutState.ABORTED, RolloutState.ROLLED_BACK, ScalingState.DONE, ScalingState.ABORTED}
)

HISTORY = 32
"""Ended rollouts that stay known to ``GET /v1/rollouts/{id}``, and as many scalings."""
