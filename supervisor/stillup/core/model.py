"""The words of the service: releases, generations, workers, rollouts and the fleet that holds them.

Everything here is a frozen value. ``Fleet`` is the only state that the supervisor has; ``core.step``
turns one into the next. Times are seconds on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from stillup.core.crossing import Crossed
from stillup.core.drain import DrainProgress
from stillup.core.hook_settings import HookKind, shown
from stillup.core.listener_key import ListenerKey
from stillup.core.outcome_records import Death, RefusedReload, RolledBackRelease
from stillup.core.policy import ConfiguredBefore, Policy
from stillup.core.setting_changes import SettingChange
from stillup.core.states import Birth, GenerationState, HookState, RolloutState, ScalingState, ServiceState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.term import Term
from stillup.core.values import replace
from stillup.core.waiting import Unhealthy, Vacancy
from stillup.core.watch import Watch
from stillup.core.worker_figures import WorkerFigures
from stillup.core.worker_settings import WorkerSettings


class Release(msgspec.Struct, frozen=True):
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
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    options: Mapping[str, object] = msgspec.field(default_factory=dict)
    """uvicorn's worker options, by uvicorn's names."""
    settings: WorkerSettings = msgspec.field(default_factory=WorkerSettings)
    binds: tuple[ListenerKey, ...] = ()
    """Where it listens, sorted; empty if that is not known."""
    fingerprint: str = ""
    """Of the code in the directory, as it was when the release was resolved."""
    whole: bool = True
    """Whether all of this is known; of an older one a record keeps only what is shown."""


class Failure(msgspec.Struct, frozen=True):
    """Why a worker did not come to serve."""

    stage: str
    """``spawn``, ``hello``, ``listeners``, ``options``, ``import``, ``lifespan``, ``probe``, ``boot``, ``accept``,
    ``channel``, ``leader``, ``hang`` or ``exit``; ``gate``, ``inconclusive``; ``hook``: there was no worker yet."""
    message: str
    worker: str = ""
    pid: int | None = None
    output: str = ""
    """The tail of the worker's, or the hook's, own stdout and stderr."""


class Worker(msgspec.Struct, frozen=True):
    """One process of a generation. ``serial`` is its identity; ``slot`` outlives it."""

    serial: int
    generation: int
    slot: int
    state: WorkerState
    spawned: float
    pid: int | None = None
    started: int = 0
    """Clock ticks from the host's start to its process's: with the pid, the process's identity."""
    birth: Birth | None = None
    admitted: float = 0.0
    """When it was last told to accept."""
    deaths: int = 0
    """How many workers of this slot died young in a row before this one."""
    recycle: str = ""
    recycle_since: float = 0.0
    """Why it is to be replaced, empty while it is not; and since when."""
    heard: float | None = None
    """When it was last heard since it serves; None if its clock has yet to start."""
    hung: float | None = None
    """Since when it has not been heard, once it was found to be hung; None again when it is heard."""
    unhealthy: Unhealthy | None = None
    """While it boots; None if nothing was said of its probe, and once it has succeeded."""
    failure: Failure | None = None
    figures: WorkerFigures = msgspec.field(default_factory=WorkerFigures)
    """As last reported."""
    reported: float = 0.0
    """When that was."""
    drain: DrainProgress | None = None
    led: int = 0
    """The last term in which it was told to lead; 0: none."""
    takes_sessions: bool = False
    """Whether it can take WebSockets over."""
    listeners: tuple[ListenerKey, ...] = ()
    """Those that it was handed, but for what it was told to let go of."""
    lost_told: int = 0
    lost_told_at: float | None = None
    """Of the connections that it has lost, those that were announced, and when any last were."""
    refused_told: Mapping[str, int] = {}
    refused_told_at: float | None = None
    """By reason, the same of the sessions that did not go on in it."""

    @property
    def name(self) -> str:
        """How people call it: ``3.1`` is slot 1 of generation 3."""
        return f"{self.generation}.{self.slot}"

    @property
    def exit_expected(self) -> bool:
        """Whether the end of its process would be one that was ordered: it is leaving, and has not failed."""
        return self.state.retiring and self.failure is None


class Generation(msgspec.Struct, frozen=True):
    """The workers that run one release."""

    id: int
    state: GenerationState
    release: Release
    size: int
    """Workers wanted: slots 1 to ``size``."""
    vacancies: Mapping[int, Vacancy] = msgspec.field(default_factory=dict)
    """Slots that wait for their respawn timer."""
    drained_from: float | None = None
    """When it began to drain."""
    standby_until: float | None = None
    """When its standby is over, once it has begun; None again when it serves."""
    crossed_before: Crossed = msgspec.field(default_factory=Crossed)
    """Of all its workers, when it came back from its standby: what crossed in an earlier rollout."""
    crossed: Crossed = msgspec.field(default_factory=Crossed)
    """Of those of its workers that are gone."""


class Rollout(msgspec.Struct, frozen=True):
    """One replacement of the serving generation. It has one outcome: its cut-over, or that it was aborted."""

    id: int
    state: RolloutState
    release: Release
    why: str
    asked: float
    strategy: Strategy = msgspec.field(default_factory=Strategy)
    """How its generation comes."""
    generation: int | None = None
    """The new generation, once it was begun, or its number, once that is prepared for."""
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
    crossed: Crossed = msgspec.field(default_factory=Crossed)
    """Of the previous generation, once that is gone."""
    reason: str = ""
    """Of an aborted one: ``superseded``, ``called-off``, ``stopping``, or the failure's stage; of one that was rolled
    back: ``crashed``.

    Of one that crashed and could not be rolled back: ``release-overwritten``, or ``rolls-back``.
    """
    failure: Failure | None = None
    """Why it was aborted, or how the last worker died before it was rolled back."""
    changes: tuple[SettingChange, ...] = ()
    """What was changed in the configuration when it was asked for."""
    before: ConfiguredBefore | None = None
    """What was in force before these changes, for its abort; None if there were none."""
    watch: Watch | None = None

    @property
    def goes_by_plan(self) -> bool:
        """Whether it is under way, and brings its workers, or takes them back, one after another (``core.plan``)."""
        booting = self.state is RolloutState.BOOTING and self.strategy.kind is not StrategyKind.BLUE_GREEN
        return booting or self.state.shifts

    @property
    def on_trial(self) -> bool:
        """Whether no more of its generation may come than its canary."""
        is_canary = self.strategy.kind.watches and self.state.pending
        return is_canary and not (self.watch and self.watch.passed)

    @property
    def previous_release(self) -> str:
        """How people call what it replaced; empty if that was nothing."""
        return self.replaced.label if self.replaced is not None else ""


class Scaling(msgspec.Struct, frozen=True):
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


class Hook(msgspec.Struct, frozen=True):
    """One run of a program around a rollout. It has one outcome. ``id`` is its serial."""

    id: int
    kind: HookKind
    state: HookState
    rollout: int
    generation: int
    """The one that comes, or has come."""
    words: tuple[str, ...]
    """The program, and its arguments."""
    begun: float | None = None
    """When its process was asked for."""
    ended: float | None = None
    pid: int | None = None
    started: int = 0
    """Clock ticks from the host's start to its process's: with the pid, the process's identity."""
    reason: str = ""
    """Why it was told to end: ``timeout``, or why its rollout was aborted; of one that failed by itself ``failed``."""

    @property
    def name(self) -> str:
        """How people call it: ``manage.py migrate``."""
        return shown(self.words)


T = TypeVar("T", Rollout, Scaling, Hook)


class Fleet(msgspec.Struct, frozen=True):
    """All that the supervisor knows."""

    policy: Policy = msgspec.field(default_factory=Policy)
    size: int = 1
    """Workers wanted of each new generation."""
    configured: int = 0
    """So many the configuration wants, if it was read again since the start; scaling does not change that."""
    state: ServiceState = ServiceState.STARTING
    exit_code: int = 0
    cordoned: float | None = None
    """Since when nobody is to send new clients, though requests are served; None: they are to."""
    generations: Mapping[int, Generation] = msgspec.field(default_factory=dict)
    workers: Mapping[int, Worker] = msgspec.field(default_factory=dict)
    rollouts: tuple[Rollout, ...] = ()
    """Oldest first; ended ones are kept up to ``HISTORY``."""
    scalings: tuple[Scaling, ...] = ()
    """Oldest first, kept like rollouts."""
    hooks: tuple[Hook, ...] = ()
    """Oldest first, kept like rollouts."""
    listeners: tuple[ListenerKey, ...] = ()
    """Those that are held (``core.listeners``)."""
    deaths: tuple[Death, ...] = ()
    """The last ones, oldest first; so are the next two."""
    refused: tuple[RefusedReload, ...] = ()
    rolled_back: tuple[RolledBackRelease, ...] = ()
    """Releases that are put into service again only by who insists."""
    crossed: Crossed = msgspec.field(default_factory=Crossed)
    """Of all workers that are gone."""
    term: Term = Term()
    last_generation: int = 0
    last_worker: int = 0
    last_rollout: int = 0
    last_scaling: int = 0
    last_hook: int = 0

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

    @property
    def hook_under_way(self) -> Hook | None:
        """The one hook that has a process, or is to have one."""
        return next((hook for hook in self.hooks if hook.state.under_way), None)

    def brought_by(self, generation: int) -> Rollout | None:
        """The rollout that brings, or has brought, a generation; of one that came back from its standby the last."""
        return next((one for one in reversed(self.rollouts) if one.generation == generation), None)

    def crossed_of(self, generation: int) -> Crossed:
        """The crossing's figures of a generation, of all its workers; of one that came back, since then."""
        known = self.generations.get(generation)
        before = known.crossed if known is not None else Crossed()
        all_of_it = sum((worker.figures.crossed for worker in self.of(generation)), before)
        return all_of_it.since(known.crossed_before) if known is not None else all_of_it

    @property
    def all_serving(self) -> tuple[Generation, ...]:
        """Every generation that serves, the oldest first."""
        serving = (one for one in self.generations.values() if one.state is GenerationState.SERVING)
        return tuple(sorted(serving, key=lambda generation: generation.id))

    @property
    def serving(self) -> Generation | None:
        """The latest generation that serves."""
        return next(reversed(self.all_serving), None)

    @property
    def standby(self) -> Generation | None:
        """The one generation that would come back at once."""
        return next((one for one in self.generations.values() if one.state is GenerationState.STANDBY), None)

    @property
    def pending(self) -> Rollout | None:
        """The one rollout whose cut-over is ahead."""
        return next((rollout for rollout in self.rollouts if rollout.state.pending), None)

    @property
    def plan(self) -> Rollout | None:
        """The one rollout under way by which a generation comes, or goes back, a worker at a time."""
        return next((rollout for rollout in self.rollouts if rollout.goes_by_plan), None)

    @property
    def parks(self) -> bool:
        """Whether what is idle at a stop is put into the adoption queue for a later supervisor.

        Not after an announcement, by a cordon or a delay: clients are sent elsewhere, and nobody is to come back here.
        """
        return self.policy.parks and self.cordoned is None and self.policy.stop_delay == 0

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

    def with_hook(self, hook: Hook) -> Fleet:
        """The same with a run of a hook."""
        return replace(self, hooks=_remember(self.hooks, hook))


def _remember(known: tuple[T, ...], new: T) -> tuple[T, ...]:
    rest = [one if one.id != new.id else new for one in known]
    if new.id not in {one.id for one in known}:
        rest.append(new)
    ended = [one.id for one in rest if one.state.ended]
    forgotten = set(ended[: max(0, len(ended) - HISTORY)])
    return tuple(one for one in rest if one.id not in forgotten)


HISTORY = 32
"""Ended rollouts that stay known to ``GET /v1/rollouts/{id}``, and as many scalings and hooks."""
