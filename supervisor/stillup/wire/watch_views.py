"""The watch of a rollout's canary, in a shape of the control API. Durations are seconds."""

from __future__ import annotations

import msgspec

from stillup.core.model import Rollout
from stillup.core.states import RolloutState


class SideView(msgspec.Struct, frozen=True):
    """How the workers of one generation have done since the watch began."""

    requests: int
    """That the app has answered."""
    errors: int
    """Of these, with a 5xx."""
    p99: float
    """Until the answer began, of all but one of a hundred at most."""
    lag: float
    """By which heartbeats came late, likewise."""


class WatchView(msgspec.Struct, frozen=True):
    """The watch of a canary, under way or ended."""

    workers: int
    """Of the new generation, that are watched."""
    lasts: float
    """For how long they are watched, if it can be told then how they do."""
    least: int
    """Requests that either side has to have answered for a verdict."""
    watched_for: float | None = None
    """Since it began; null once it has ended."""
    held_for: float | None = None
    """Since it goes on only because it cannot be told; null of one that was not held, and once it has ended."""
    goes_back_in: float | None = None
    """If it cannot be told by then; null once it has ended."""
    verdict: str | None = None
    """``pass``, ``fail``, ``inconclusive``, ``promoted`` or ``ungated``; null until it has ended."""
    reason: str | None = None
    """Why it failed, or cannot be told: ``errors``, ``latency``, ``lag``, ``few-requests``, ``share`` or ``silent``."""
    share: float = 0.0
    """Of all requests, those that the canary has answered; of 1."""
    old: SideView | None = None
    """As of the last look; null before the first."""
    new: SideView | None = None


def watch_of(shown: Rollout, now: float) -> WatchView | None:
    """Show that of a rollout; None if it has none, or that has not begun."""
    watch, strategy = shown.watch, shown.strategy
    if watch is None:
        return None
    seen, goes_on = watch.comparison, shown.state is RolloutState.WATCHING
    sides = (
        [None, None] if seen is None else [SideView(*msgspec.structs.astuple(side)) for side in (seen.old, seen.new)]
    )
    return WatchView(
        workers=watch.workers,
        lasts=strategy.canary_time,
        least=strategy.min_requests,
        watched_for=now - watch.began if goes_on else None,
        held_for=now - watch.held if goes_on and watch.held is not None else None,
        goes_back_in=max(0.0, watch.expires - now) if goes_on else None,
        verdict=watch.verdict,
        reason=watch.reason,
        share=seen.share if seen is not None else 0.0,
        old=sides[0],
        new=sides[1],
    )
