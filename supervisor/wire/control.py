"""The shapes of the control API, and how the fleet is shown in them. Durations are seconds."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from supervisor.core.model import (
    Failure,
    Fleet,
    Generation,
    Rollout,
    RolloutState,
    Scaling,
    ScalingState,
    Worker,
    WorkerState,
)
from supervisor.wire.handoff import ListenerInfo

PROBLEM: Final = "application/problem+json"
"""RFC 9457."""
PROBLEM_TYPE: Final = "urn:stillup:problem:"
"""What the ``type`` of every problem begins with; the rest is stable too."""


class ListenerView(msgspec.Struct, frozen=True):
    """A listener: its name, and the address that it got."""

    name: str
    address: str


class WorkerView(msgspec.Struct, frozen=True):
    """A worker; ``connections`` is all of them, ``classes`` tells what they are doing."""

    id: str
    pid: int | None
    state: str
    connections: int
    requests: int
    classes: dict[str, int]
    age: float
    oldest: dict[str, float] = {}
    """While it drains: for each class, the seconds that its oldest connection has been of it."""
    worn: str = ""
    """Why it is being replaced; empty while it is not."""
    hung_for: float | None = None
    """Seconds without a word of it, once it was found to hang."""


class VacancyView(msgspec.Struct, frozen=True):
    """A slot that waits for its next worker, since its workers keep dying young (or wearing out young)."""

    id: str
    """The slot as its worker will be called: ``2.1``."""
    deaths: int
    """How many died, or wore out, young in a row."""
    seconds: float
    """Until the next start."""
    worn: str = ""
    """Why who serves in it meanwhile is worn; empty if nobody does."""


class GenerationView(msgspec.Struct, frozen=True):
    """A generation and its workers."""

    id: int
    state: str
    release: str
    workers: list[WorkerView]
    draining_for: float | None = None
    waiting: list[VacancyView] = []
    """By slot."""


class CrossingView(msgspec.Struct, frozen=True):
    """Connections that moved from worker to worker, since the service was started."""

    given: int
    """Put into the adoption queue."""
    adopted: int
    """Taken from it."""
    waiting: int
    """In it now, by the kernel's count."""
    lost: int
    """Dropped between two workers: none should be."""
    closed: int
    """Without a request in progress, and ended by a drain because they could not move."""
    capacity: int
    """About how many the queue holds; while it is more than a quarter full, those that leave wait where they are."""
    longest: float
    """Seconds; the longest that one was between two workers."""


class FailureView(msgspec.Struct, frozen=True):
    """Why a worker did not come to serve, with the tail of its own output.

    ``message`` and ``output`` are for operators, and empty for viewers: the app chose them.
    """

    stage: str
    message: str
    worker: str
    pid: int | None
    output: str


class RolloutView(msgspec.Struct, frozen=True):
    """A rollout, under way or ended.

    ``outcome`` is null until it has one: ``succeeded`` or ``aborted``. A success becomes ``rolled-back`` if the new
    workers crash soon after it; ``reason`` is ``crashed`` then, and the rollout whose ``rolls_back`` is its id follows.
    """

    id: int
    state: str
    outcome: str | None
    why: str
    generation: int | None
    previous: int | None
    release: str
    previous_release: str
    workers_wanted: int
    workers_ready: int
    probe: str
    booting_for: float | None
    """From the first spawn until all were READY, or until now."""
    cut_over_took: float | None
    total: float
    """From the request until the cut-over or the abort, or until now."""
    reason: str
    failure: FailureView | None
    drains: dict[str, int]
    """What the previous generation still has, by class."""
    drain_left: float | None
    """Seconds until its drain's deadline."""
    moved: int = 0
    """Connections that the previous generation has given away."""
    closed: int = 0
    """Connections without a request in progress that it had to end."""
    longest_pause: float = 0.0
    """Seconds; the longest that a connection was between two workers, as far as the new generation has seen."""
    rolls_back: int | None = None
    """The rollout that this one takes back."""
    deaths: int = 0
    """Workers of the new generation that died by themselves in its probation."""


class ScalingView(msgspec.Struct, frozen=True):
    """A request for more or fewer workers. ``outcome`` is null until it has one: ``succeeded`` or ``aborted``."""

    id: int
    state: str
    outcome: str | None
    workers_wanted: int
    workers_before: int
    """As many were wanted before."""
    workers_serving: int
    """Of the generation that serves."""
    workers_leaving: int
    """Of that generation, those that finish what they hold."""
    total: float
    """From the request until its outcome, or until now."""
    reason: str
    failure: FailureView | None


class Status(msgspec.Struct, frozen=True):
    """The whole service."""

    name: str
    version: str
    pid: int
    state: str
    listeners: list[ListenerView]
    generations: list[GenerationView]
    crossing: CrossingView
    rollout: RolloutView | None
    """The rollout under way, or else the last one."""
    reexecs: int = 0
    """How often the supervisor has replaced its own program."""


class Versions(msgspec.Struct, frozen=True):
    """Of the supervisor's program, and of what it speaks."""

    version: str
    """Of stillup."""
    api: str
    """``MAJOR.MINOR``, as in the header ``Stillup-API``."""
    handoff: list[int]
    """Versions of the hand-off protocol: workers of an older release may be alive."""
    python: str
    uvicorn: str


class Whoami(msgspec.Struct, frozen=True):
    """Who the caller is by the kernel's word, and what he may do."""

    uid: int
    gid: int
    groups: list[int]
    """Supplementary groups."""
    pid: int
    """0: a process of another pid namespace."""
    login_uid: int | None
    """Who logged in in the first place; null if nobody did, or it is not known."""
    exe: str
    """The program; empty if it is not known."""
    role: str
    may: list[str]
    """The names of the operations that he may ask for here."""


class Live(msgspec.Struct, frozen=True):
    """The supervisor answers."""

    live: bool = True


class Ready(msgspec.Struct, frozen=True):
    """A generation serves."""

    ready: bool = True


class Stopping(msgspec.Struct, frozen=True):
    """The service is ending."""

    state: str


class Replacing(msgspec.Struct, frozen=True):
    """The supervisor's program is about to be replaced; ``reexecs``: how often it was before."""

    reexecs: int
    state: str = "replacing"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    rollout: RolloutView | None = None
    scaling: ScalingView | None = None


V = TypeVar("V", Status, RolloutView, ScalingView)


def without_output(view: V) -> V:
    """The same without what a failed worker wrote or said: that may be anything, and not every viewer is to read it."""
    match view:
        case Status():
            rollout = without_output(view.rollout) if view.rollout is not None else None
            return msgspec.structs.replace(view, rollout=rollout)
        case _:
            failure = msgspec.structs.replace(view.failure, message="", output="") if view.failure is not None else None
            return msgspec.structs.replace(view, failure=failure)


def generations(fleet: Fleet, now: float) -> list[GenerationView]:
    """Show the generations, the oldest first."""
    return [_generation(fleet, generation, now) for _, generation in sorted(fleet.generations.items())]


def listeners(infos: tuple[ListenerInfo, ...]) -> list[ListenerView]:
    """Show the listeners."""
    return [ListenerView(info.name, info.address) for info in infos]


def status(
    fleet: Fleet,
    *,
    name: str,
    version: str,
    pid: int,
    infos: tuple[ListenerInfo, ...],
    waiting: int,
    capacity: int,
    now: float,
    reexecs: int = 0,
) -> Status:
    """Show the fleet; ``waiting`` connections are in the adoption queue, which holds about ``capacity``."""
    crossed = sum((worker.crossed for worker in fleet.workers.values()), fleet.crossed)
    shown = fleet.pending or (fleet.rollouts[-1] if fleet.rollouts else None)
    return Status(
        name=name,
        version=version,
        pid=pid,
        state=fleet.state,
        listeners=listeners(infos),
        generations=generations(fleet, now),
        crossing=CrossingView(
            given=crossed.given,
            adopted=crossed.adopted,
            waiting=waiting,
            lost=crossed.lost,
            closed=crossed.closed,
            capacity=capacity,
            longest=crossed.longest,
        ),
        rollout=rollout(fleet, shown, now) if shown is not None else None,
        reexecs=reexecs,
    )


def rollout(fleet: Fleet, shown: Rollout, now: float) -> RolloutView:
    """Show one rollout of the fleet."""
    begun, ready, cut = shown.begun, shown.ready, shown.cut
    settled = cut if cut is not None else shown.ended
    booted = ready if ready is not None else (settled if settled is not None else now)
    generation = fleet.generations.get(shown.generation or 0)
    previous = fleet.generations.get(shown.previous or 0) if cut is not None else None
    drains: dict[str, int] = {}
    for worker in fleet.of(previous.id) if previous is not None else ():
        for kind, count in worker.connections.items():
            drains[kind] = drains.get(kind, 0) + count
    left = None
    if previous is not None and previous.drained_from is not None:
        left = max(0.0, previous.drained_from + fleet.policy.drain_timeout - now)
    crossed = fleet.crossed_of(previous.id) if previous is not None else shown.crossed
    return RolloutView(
        id=shown.id,
        state=shown.state,
        outcome=_outcome(shown.state),
        why=shown.why,
        generation=shown.generation,
        previous=shown.previous,
        release=shown.release.label,
        previous_release=shown.previous_release,
        workers_wanted=generation.size if generation is not None else fleet.size,
        workers_ready=sum(w.state in _UP for w in fleet.of(shown.generation or 0)),
        probe=shown.probe,
        booting_for=booted - begun if begun is not None else None,
        cut_over_took=cut - ready if cut is not None and ready is not None else None,
        total=(settled if settled is not None else now) - shown.asked,
        reason=shown.reason,
        failure=_failure(shown.failure),
        drains=drains,
        drain_left=left,
        moved=crossed.given,
        closed=crossed.closed,
        longest_pause=fleet.crossed_of(shown.generation or 0).longest,
        rolls_back=shown.rolls_back,
        deaths=shown.deaths,
    )


def scaling(fleet: Fleet, shown: Scaling, now: float) -> ScalingView:
    """Show one request for more or fewer workers."""
    workers = list(fleet.of(fleet.serving.id)) if fleet.serving is not None else []
    aborted = "aborted" if shown.state is ScalingState.ABORTED else "succeeded"
    return ScalingView(
        id=shown.id,
        state=shown.state,
        outcome=None if shown.state is ScalingState.UNDER_WAY else aborted,
        workers_wanted=shown.size,
        workers_before=shown.previous,
        workers_serving=sum(worker.state is WorkerState.SERVING for worker in workers),
        workers_leaving=sum(worker.state.retiring for worker in workers),
        total=(shown.ended if shown.ended is not None else now) - shown.asked,
        reason=shown.reason,
        failure=_failure(shown.failure),
    )


_UP = (WorkerState.READY, WorkerState.ACCEPTING, WorkerState.SERVING)


def _outcome(state: RolloutState) -> str | None:
    if state.pending:
        return None
    return _OUTCOMES.get(state, "succeeded")


_OUTCOMES = {RolloutState.ABORTED: "aborted", RolloutState.ROLLED_BACK: "rolled-back"}


def _failure(failure: Failure | None) -> FailureView | None:
    if failure is None:
        return None
    return FailureView(**{name: getattr(failure, name) for name in FailureView.__struct_fields__})


def _generation(fleet: Fleet, generation: Generation, now: float) -> GenerationView:
    return GenerationView(
        id=generation.id,
        state=generation.state,
        release=generation.release.label,
        workers=[_worker(worker, now) for worker in fleet.of(generation.id)],
        draining_for=now - generation.drained_from if generation.drained_from is not None else None,
        waiting=[
            VacancyView(f"{generation.id}.{slot}", vacancy.deaths, max(0.0, vacancy.until - now), vacancy.worn)
            for slot, vacancy in sorted(generation.vacancies.items())
        ],
    )


def _worker(worker: Worker, now: float) -> WorkerView:
    return WorkerView(
        id=worker.name,
        pid=worker.pid,
        state=worker.state,
        connections=sum(count for kind, count in worker.connections.items() if kind != "background"),
        requests=worker.requests,
        classes=dict(worker.connections),
        age=now - worker.spawned,
        oldest={kind: now - since for kind, since in worker.oldest.items()},
        worn=worker.worn,
        hung_for=now - worker.hung if worker.hung is not None else None,
    )
