"""How a fleet is shown in the shapes of the control API. Durations are seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import asdict

from stillup.core import probation_time
from stillup.core.crossing import unmoved
from stillup.core.drain import longest
from stillup.core.lifecycle import COMING, LEAVING
from stillup.core.listener_key import ListenerKey
from stillup.core.listeners import state_of
from stillup.core.model import Failure, Fleet, Generation, Rollout, Scaling, Worker
from stillup.core.states import GenerationState, RolloutState, ScalingState, WorkerState
from stillup.core.worker_settings import probe_path
from stillup.wire import outcome_views
from stillup.wire.api_shapes import (
    FailureView,
    GenerationView,
    ListenerView,
    RolloutView,
    ScalingView,
    SettingChangeView,
    Status,
    StepView,
    SupervisorView,
    VacancyView,
    WorkerView,
)
from stillup.wire.crossing_view import CrossingView, QueueView
from stillup.wire.handoff_messages import ListenerInfo
from stillup.wire.hook_views import hook_under_way, hooks_of
from stillup.wire.watch_views import watch_of


def generations(fleet: Fleet, now: float) -> list[GenerationView]:
    """Show the generations, the oldest first."""
    return [_generation(fleet, generation, now) for _, generation in sorted(fleet.generations.items())]


def listeners(fleet: Fleet, keys: Sequence[ListenerKey], infos: Sequence[ListenerInfo]) -> list[ListenerView]:
    """Show the listeners of these keys."""
    return [
        ListenerView(info.name, info.address, state=state_of(fleet, key)) for key, info in zip(keys, infos, strict=True)
    ]


def status(fleet: Fleet, supervisor: SupervisorView, queue: QueueView, now: float) -> Status:
    """Show the whole service: the fleet, what its supervisor says of itself, and the adoption queue."""
    crossed = sum((worker.figures.crossed for worker in fleet.workers.values()), fleet.crossed)
    shown = fleet.pending or fleet.plan or (fleet.rollouts[-1] if fleet.rollouts else None)
    return Status(
        **asdict(supervisor),
        state=fleet.state,
        cordoned_for=now - fleet.cordoned if fleet.cordoned is not None else None,
        generations=generations(fleet, now),
        crossing=CrossingView(
            given=crossed.given,
            adopted=crossed.adopted,
            **asdict(queue),
            lost=crossed.lost,
            closed=crossed.closed,
            told_to_close=crossed.told_to_close,
            longest=crossed.longest,
            sessions_given=crossed.sessions_given,
            sessions_adopted=crossed.sessions_adopted,
            sessions_refused=crossed.sessions_refused,
            unmoved=unmoved(fleet.serving.release.options) if fleet.serving is not None else [],
        ),
        rollout=rollout(fleet, shown, now) if shown is not None else None,
        outcomes=outcome_views.outcomes(fleet, now),
        deaths=outcome_views.deaths(fleet, now),
        hook=hook_under_way(fleet, now),
    )


def rollout(fleet: Fleet, shown: Rollout, now: float) -> RolloutView:
    """Show one rollout of the fleet."""
    begun, ready, cut = shown.begun, shown.ready, shown.cut
    settled = cut if cut is not None else shown.ended
    booted = ready if ready is not None else (settled if settled is not None else now)
    generation = fleet.generations.get(shown.generation or 0)
    previous = fleet.generations.get(shown.previous or 0) if cut is not None else None
    awaited = _awaited(fleet, shown)
    crossed = fleet.crossed_of(previous.id) if previous is not None else shown.crossed
    taken = fleet.crossed_of(shown.generation or 0)
    return RolloutView(
        id=shown.id,
        state=shown.state,
        outcome=outcome_views.outcome(shown.state),
        why=shown.why,
        generation=shown.generation,
        previous=shown.previous,
        release=shown.release.label,
        previous_release=shown.previous_release,
        workers_wanted=generation.size if generation is not None else fleet.size,
        workers_ready=sum(w.state in _UP for w in fleet.of(shown.generation or 0)),
        probe=shown.probe or probed(fleet, shown.generation),
        booting_for=booted - begun if begun is not None else None,
        cut_over_took=cut - ready if cut is not None and ready is not None else None,
        total=(settled if settled is not None else now) - shown.asked,
        reason=shown.reason,
        failure=_failure(shown.failure),
        drains=_held(worker for one in awaited for worker in _leaving(fleet, one)),
        drain_left=_drain_left(fleet, awaited, now),
        moved=crossed.given,
        moved_sessions=crossed.sessions_given,
        refused_sessions=taken.sessions_refused,
        closed=crossed.closed,
        told_to_close=crossed.told_to_close,
        longest_pause=taken.longest,
        rolls_back=shown.rolls_back,
        deaths=shown.deaths,
        probation_left=probation_time.left(fleet, shown, now),
        serves=not shown.state.pending and fleet.serving is not None and fleet.serving.id == shown.generation,
        stopped=_was_stopped(fleet, shown),
        changes=[SettingChangeView(one.key, one.effect, one.by, one.what) for one in shown.changes],
        waits_for=[one.id for one in awaited] if shown.state is RolloutState.WAITING else [],
        hooks=hooks_of(fleet, shown.id, now),
        strategy=shown.strategy.kind,
        step=step(fleet, shown),
        standby_left=_standby_left(previous, now) if previous is not None else None,
        workers_queued=sum(w.state is WorkerState.QUEUED for w in fleet.of(shown.generation or 0)),
        births=sorted({w.birth for w in fleet.of(shown.generation or 0) if w.birth is not None}),
        watch=watch_of(shown, now),
    )


def step(fleet: Fleet, shown: Rollout) -> StepView | None:
    """How far a rollout has come while both generations may serve; None before and after."""
    if shown.state not in STEPPING:
        return None
    old, new = (
        sum(worker.state is WorkerState.SERVING for worker in fleet.of(number or 0))
        for number in (shown.previous, shown.generation)
    )
    return StepView(old, new, fleet.size)


def scaling(fleet: Fleet, shown: Scaling, now: float) -> ScalingView:
    """Show one request for more or fewer workers."""
    workers = [worker for one in fleet.generations.values() if one.state in _SERVE for worker in fleet.of(one.id)]
    leaving = [worker for worker in fleet.of(shown.generation) if worker.slot > shown.size and worker.state.retiring]
    aborted = "aborted" if shown.state is ScalingState.ABORTED else "succeeded"
    return ScalingView(
        id=shown.id,
        state=shown.state,
        outcome=None if shown.state is ScalingState.UNDER_WAY else aborted,
        workers_wanted=shown.size,
        workers_before=shown.previous,
        workers_serving=sum(worker.state is WorkerState.SERVING for worker in workers),
        workers_leaving=len(leaving),
        total=(shown.ended if shown.ended is not None else now) - shown.asked,
        reason=shown.reason,
        failure=_failure(shown.failure),
        workers_booting=sum(worker.state in COMING for worker in workers),
        drains=_held(leaving),
        drain_left=_left(_drained_at(leaving), now),
        changed=shown.size != shown.previous,
    )


def probe_seen(fleet: Fleet, worker: Worker) -> str:
    """What the probe of a worker that boots was answered last, as ``/healthz 503``; empty without a word of it."""
    if worker.unhealthy is None:
        return ""
    path = probe_path(fleet.generations[worker.generation].release.settings)
    return f"{path} {worker.unhealthy.status or 'does not answer'}"


def probed(fleet: Fleet, generation: int | None) -> str:
    """The same of a generation: of its first worker of which there is a word."""
    return next((seen for worker in fleet.of(generation or 0) if (seen := probe_seen(fleet, worker))), "")


STEPPING: Final = frozenset({RolloutState.SHIFTING, RolloutState.WATCHING, RolloutState.GOING_BACK})
"""Rollouts of which both generations may serve."""
_SERVE: Final = frozenset({GenerationState.SERVING, GenerationState.SHIFTING})
_UP = (WorkerState.READY, WorkerState.PAUSED, WorkerState.ACCEPTING, WorkerState.SERVING)


def _held(workers: Iterable[Worker]) -> dict[str, int]:
    """What these workers have, by class."""
    held: dict[str, int] = {}
    for worker in workers:
        for kind, count in worker.figures.classes.items():
            held[kind] = held.get(kind, 0) + count
    return held


def _awaited(fleet: Fleet, shown: Rollout) -> list[Generation]:
    """The generations that a rollout waits for.

    Before it begins those of which one has to leave, while it goes step by step both, then the previous.
    """
    if shown.state is RolloutState.WAITING:
        away = LEAVING | {GenerationState.SHIFTING}
        return [one for _, one in sorted(fleet.generations.items()) if one.state in away]
    numbers = [shown.previous] if shown.cut is not None else []
    if shown.state in STEPPING:
        numbers = [shown.previous, shown.generation]
    return [one for number in numbers if (one := fleet.generations.get(number or 0)) is not None]


def _leaving(fleet: Fleet, generation: Generation) -> Iterator[Worker]:
    """Its workers that leave, or are paused: of one that serves, or half, those that drain."""
    leaves = generation.state in LEAVING or generation.state is GenerationState.STANDBY
    return (worker for worker in fleet.of(generation.id) if leaves or worker.state is WorkerState.DRAINING)


def _was_stopped(fleet: Fleet, shown: Rollout) -> bool:
    """Whether what a rollout had put into service was ended by a stop, and not by a later rollout."""
    replaced = any(one.previous == shown.generation and one.cut is not None for one in fleet.rollouts)
    return fleet.serving is None and shown.cut is not None and not replaced


def _drain_left(fleet: Fleet, awaited: Sequence[Generation], now: float) -> float | None:
    ends = [end for one in awaited if (end := _drained_at(_leaving(fleet, one))) is not None]
    return _left(min(ends, default=None), now)


def _drained_at(workers: Iterable[Worker]) -> float | None:
    """When all of these that drain have ended at the latest, by the times that each was told; None if none drains."""
    ends = (one.drain.since + longest(one.figures.classes, one.drain.times) for one in workers if one.drain is not None)
    return max(ends, default=None)


def _standby_left(generation: Generation, now: float) -> float | None:
    return _left(generation.standby_until, now) if generation.state is GenerationState.STANDBY else None


def _left(end: float | None, now: float) -> float | None:
    return max(0.0, end - now) if end is not None else None


def _failure(failure: Failure | None) -> FailureView | None:
    if failure is None:
        return None
    return FailureView(**{name: getattr(failure, name) for name in FailureView.__struct_fields__})


def _generation(fleet: Fleet, generation: Generation, now: float) -> GenerationView:
    return GenerationView(
        id=generation.id,
        state=generation.state,
        release=generation.release.label,
        workers=[_worker(fleet, worker, now) for worker in fleet.of(generation.id)],
        draining_for=now - generation.drained_from if generation.drained_from is not None else None,
        standby_left=_standby_left(generation, now),
        waiting=[
            VacancyView(f"{generation.id}.{slot}", vacancy.deaths, max(0.0, vacancy.until - now), vacancy.recycle)
            for slot, vacancy in sorted(generation.vacancies.items())
        ],
    )


def leads(fleet: Fleet, worker: Worker) -> bool:
    """Whether a worker leads: it was told to, and says that it does."""
    return fleet.term.worker == worker.serial and worker.figures.leadership.leads


def _worker(fleet: Fleet, worker: Worker, now: float) -> WorkerView:
    figures = asdict(worker.figures)
    since = now - worker.reported
    figures["oldest"] = {kind: age + since for kind, age in worker.figures.oldest.items()}
    return WorkerView(
        **figures,
        id=worker.name,
        pid=worker.pid,
        state=worker.state,
        connections=sum(count for kind, count in worker.figures.classes.items() if kind != "background"),
        age=now - worker.spawned,
        worn=worker.recycle,
        hung_for=now - worker.hung if worker.hung is not None else None,
        probe=probe_seen(fleet, worker),
        leader=leads(fleet, worker),
        birth=worker.birth,
    )
