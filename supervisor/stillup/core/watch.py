"""What is known of a rollout's canary while it is watched: the counts of both sides, and what has come of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from stillup.core.worker_figures import Answers


class Verdict(StrEnum):
    """How a watch ended."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """It could not be told until the time was over."""
    PROMOTED = "promoted"
    """Somebody has decided it."""
    UNGATED = "ungated"
    """Nothing was to be judged, and the canary has lived."""

    @property
    def goes_on(self) -> bool:
        """Whether the rest of the new generation comes."""
        return self not in (Verdict.FAIL, Verdict.INCONCLUSIVE)


class WatchReason(StrEnum):
    """Why a canary failed, or why it cannot be told."""

    ERRORS = "errors"
    """More answers of the app's are a 5xx."""
    LATENCY = "latency"
    """More answers take longer."""
    LAG = "lag"
    """The event loops come late more often."""
    FEW_REQUESTS = "few-requests"
    SHARE = "share"
    """The canary gets far fewer, or far more, requests than its part of the workers."""
    SILENT = "silent"
    """Of the canary's workers not all serve, or one was not heard for an interval."""


class SideFigures(msgspec.Struct, frozen=True):
    """How one side does."""

    requests: int = 0
    """That the app has answered."""
    errors: int = 0
    """Of these, with a 5xx."""
    p99: float = 0.0
    """Seconds to the beginning of the answer, which all but one of a hundred took at most."""
    lag: float = 0.0
    """Seconds by which the heartbeats came late, likewise."""


class Comparison(msgspec.Struct, frozen=True):
    """How both sides have done over the same time."""

    old: SideFigures = SideFigures()
    new: SideFigures = SideFigures()
    share: float = 0.0
    """Of all requests, those that the new workers have answered; of 1."""


class Watch(msgspec.Struct, frozen=True):
    """The watch of a rollout's canary."""

    began: float
    until: float
    """Till then nothing is passed."""
    expires: float
    """Without a verdict by then the rollout goes back."""
    due: float
    """When it is looked at next."""
    workers: int
    """C, as it was when it began."""
    baseline: Mapping[int, Answers] = msgspec.field(default_factory=dict)
    """By serial, what each worker had counted when the interval began."""
    old: Answers = Answers()
    """What the old side has counted in the intervals that are over."""
    new: Answers = Answers()
    suspected: tuple[WatchReason, ...] = ()
    """In what the new side was worse in the last interval that is over."""
    held: float | None = None
    """Since when it goes on only since it cannot be told."""
    verdict: Verdict | None = None
    reason: WatchReason | None = None
    """Why it failed, or why it cannot be told."""
    comparison: Comparison | None = None
    """Over all of the watch, as of the last look."""

    @property
    def passed(self) -> bool:
        """Whether the canary was found to be good enough, or somebody has said so."""
        return self.verdict is not None and self.verdict.goes_on
