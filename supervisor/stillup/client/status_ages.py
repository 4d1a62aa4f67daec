"""A status as it would be some seconds later, if nothing had happened meanwhile: what is left gets less."""

from __future__ import annotations

from msgspec.structs import replace

from stillup.core.states import RolloutState
from stillup.wire.api_shapes import GenerationView, RolloutView, Status, WorkerView
from stillup.wire.hook_views import HookView


def aged(status: Status, seconds: float) -> Status:
    """The status so many seconds after it was answered: its times, and none of its counts."""
    return replace(
        status,
        uptime=status.uptime + seconds,
        cordoned_for=_more(status.cordoned_for, seconds),
        generations=[_generation(one, seconds) for one in status.generations],
        rollout=_rollout(status.rollout, seconds) if status.rollout is not None else None,
        outcomes=[replace(one, ago=one.ago + seconds) for one in status.outcomes],
        deaths=[replace(one, ago=one.ago + seconds) for one in status.deaths],
        hook=_hook(status.hook, seconds) if status.hook is not None else None,
    )


def _generation(one: GenerationView, seconds: float) -> GenerationView:
    return replace(
        one,
        workers=[_worker(worker, seconds) for worker in one.workers],
        draining_for=_more(one.draining_for, seconds),
        standby_left=_less(one.standby_left, seconds),
        waiting=[replace(vacancy, seconds=max(0.0, vacancy.seconds - seconds)) for vacancy in one.waiting],
    )


def _worker(one: WorkerView, seconds: float) -> WorkerView:
    if one.hung_for is None and not one.oldest:
        return one  # most: nothing of it is shown to the second
    oldest = {kind: age + seconds for kind, age in one.oldest.items()}
    return replace(one, hung_for=_more(one.hung_for, seconds), oldest=oldest)


def _rollout(one: RolloutView, seconds: float) -> RolloutView:
    boots = one.state in (RolloutState.BOOTING, RolloutState.SHIFTING, RolloutState.WATCHING)
    watch = one.watch
    if watch is not None:
        watch = replace(
            watch,
            watched_for=_more(watch.watched_for, seconds),
            held_for=_more(watch.held_for, seconds),
            goes_back_in=_less(watch.goes_back_in, seconds),
        )
    return replace(
        one,
        booting_for=_more(one.booting_for, seconds if boots else 0.0),
        total=one.total + (seconds if one.outcome is None else 0.0),
        drain_left=_less(one.drain_left, seconds),
        probation_left=_less(one.probation_left, seconds),
        standby_left=_less(one.standby_left, seconds),
        hooks=[_hook(hook, seconds) for hook in one.hooks],
        watch=watch,
    )


def _hook(one: HookView, seconds: float) -> HookView:
    if one.left is None:
        return one
    return replace(one, seconds=one.seconds + seconds, left=_less(one.left, seconds))


def _more(before: float | None, seconds: float) -> float | None:
    return before + seconds if before is not None else None


def _less(before: float | None, seconds: float) -> float | None:
    return max(0.0, before - seconds) if before is not None else None
