"""The kinds of events that rollouts and generations go through: each one's shape, and how it reads.

A kind keeps its name and its fields; later versions add fields, and kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from stillup.core.amounts import sessions_among
from stillup.core.states import CALLED_OFF, LOST, ROLLS_BACK
from stillup.wire.event_envelope import Envelope, filled

BLAMELESS: Final = frozenset({"superseded", "stopping", CALLED_OFF, LOST})
"""Why a rollout may be aborted without anything wrong with its release."""


# Rollouts


class RolloutBegun(Envelope, frozen=True, tag="rollout.begun"):
    """A new generation boots."""

    line = "gen {generation} boots from {release} ({why})"

    rollout: int
    generation: int
    why: str
    """Who asked for it, or what did."""
    release: str


class RolloutWaiting(Envelope, frozen=True, tag="rollout.waiting"):
    """A reload was accepted while as many generations drain as may."""

    line = "reload {rollout} waits until an older generation has left"

    rollout: int


class RolloutStep(Envelope, frozen=True, tag="rollout.step"):
    """Another worker serves, or one no longer does, while a rollout replaces some at a time, or takes that back."""

    line = "gen {generation} serves with {new} of {of} workers, the one before with {old}"

    rollout: int
    generation: int
    """The new one."""
    old: int
    """Workers of the generation before that serve."""
    new: int
    """Workers of the new generation that serve."""
    of: int
    """Workers wanted."""


class RolloutWentBack(Envelope, frozen=True, tag="rollout.went-back"):
    """A rollout that was aborted while both generations served has taken its steps back: the one before serves alone.

    ``rollout.aborted`` came before, when it began to.
    """

    line = "gen {generation} has gone back"

    rollout: int
    generation: int


class RolloutGaveUp(Envelope, frozen=True, tag="rollout.gave-up"):
    """A rollout goes back no further, since a reload waits and what served before boots no more.

    Of its two generations that serves on of which more workers do; the other leaves.
    """

    level = "ERROR"
    line = (
        "gen {generation} goes back no further, since workers of the one before do not start: "
        "gen {serving} serves on with {workers} of {of}"
    )

    rollout: int
    generation: int
    """The new one."""
    serving: int
    """The one that serves on."""
    workers: int
    """Workers of that which serve."""
    of: int
    """Workers wanted."""


class RolloutCutOver(Envelope, frozen=True, tag="rollout.cut-over"):
    """The new generation serves, and the one before begins to drain: the rollout has succeeded."""

    line = "gen {generation} serves"

    rollout: int
    generation: int
    previous: int | None
    """The generation that drains now; null if none served."""


class RolloutDone(Envelope, frozen=True, tag="rollout.done"):
    """The generation that was replaced has left."""

    level = "DEBUG"
    line = "reload {rollout} is done"

    rollout: int
    generation: int


class RolloutAborted(Envelope, frozen=True, tag="rollout.aborted"):
    """A rollout ended before its cut-over; what served serves on, or comes back (``rollout.went-back``)."""

    level = "ERROR"
    line = "gen {generation} rejected ({reason}): {why}"

    rollout: int
    generation: int | None
    """Null if it had not begun."""
    reason: str
    """``superseded``, ``called-off``, ``stopping``, ``supervisor-lost``, or the stage in which a worker failed.

    Of a canary also ``gate``, if it did worse than what served, and ``inconclusive``, if that could not be told.
    """
    why: str
    """Which worker failed, and how, without what its app said of it, or a canary's figures; empty if none did."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        off = data["reason"] in BLAMELESS
        return filled("reload {rollout} is off: {reason}" if off else cls.line, data)

    def loudness(self) -> str:
        return "INFO" if self.reason in BLAMELESS else self.level


class RolloutRolledBack(Envelope, frozen=True, tag="rollout.rolled-back"):
    """A generation crashed soon after its cut-over; another rollout brings back the release before it."""

    level = "ERROR"
    line = "gen {generation} crashes ({deaths:death} within {seconds:.0f} s): back to {release}"

    rollout: int
    """The one that is taken back."""
    generation: int
    release: str
    """What comes back."""
    deaths: int
    seconds: float
    """Since the cut-over."""


class RollbackRefused(Envelope, frozen=True, tag="rollback.refused"):
    """A generation crashes, and there is nothing to go back to."""

    level = "ERROR"
    line = (
        "gen {generation} crashes, and there is nothing to go back to: {release} was changed in place, or removed "
        "({reason})"
    )

    rollout: int
    generation: int
    release: str
    """What it had replaced."""
    reason: str
    """``release-overwritten``, or ``rolls-back``: it is what was rolled back to."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        if data["reason"] == ROLLS_BACK:
            return filled("gen {generation} crashes, and was a rollback itself: it stays ({reason})", data)
        return filled(cls.line, data)


class ReloadRefused(Envelope, frozen=True, tag="reload.refused"):
    """A reload was refused before a rollout was made of it; what serves goes on."""

    level = "ERROR"
    line = "no reload ({why}): {reason}"

    why: str
    """Who asked for it, or what did."""
    reason: str
    """The type of the problem: ``release``, ``configuration`` or ``rolled-back-before``."""


class GenerationStandby(Envelope, frozen=True, tag="generation.standby"):
    """A generation was replaced, and its workers are paused: a rollback has them accept again at once."""

    line = "gen {generation} stands by for {seconds:.0f} s, {workers:worker} paused"

    generation: int
    workers: int
    """Those that were paused."""
    seconds: float
    """How long it does."""


class GenerationGone(Envelope, frozen=True, tag="generation.gone"):
    """The last worker of a generation has left."""

    line = "gen {generation} has left: {moved:connection}{sessions} moved on, {closed} closed"

    generation: int
    moved: int
    closed: int
    """Those without a request in progress that it had to end."""
    told_to_close: int
    """Those that ended while its answers said ``Connection: close``, since they could not move."""
    sessions: int = 0
    """Sessions among those that moved on."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        told = data["told_to_close"]
        data = {**data, "sessions": sessions_among(cast("int", data["sessions"]))}
        if not told:
            return filled(cls.line, data)
        closed = f"{data['closed']} closed, " if data["closed"] else ""
        left = filled("gen {generation} has left: {moved:connection}{sessions} moved on", data)
        return f"{left}, {closed}{told} told to close"


class ReleaseChanged(Envelope, frozen=True, tag="release.changed"):
    """A worker was started from a release that is not what it was when it was resolved; told once a generation."""

    level = "WARNING"
    line = "{release} was changed in place: worker {worker} may run something else than what it stood for"

    generation: int
    worker: str
    release: str


class PreloadUnfit(Envelope, frozen=True, tag="preload.unfit"):
    """The workers of a generation import the app each by itself, though ``--preload`` is on."""

    level = "WARNING"
    line = "gen {generation} is not preloaded, each of its workers imports the app: {why}"

    generation: int
    why: str


# Requests


class ScalingDone(Envelope, frozen=True, tag="scaling.done"):
    """As many workers serve as were asked for."""

    line = "{workers} of {workers} workers serve"

    scaling: int
    workers: int


class ScalingAborted(Envelope, frozen=True, tag="scaling.aborted"):
    """A request for a number of workers is not waited for any longer; as many are still wanted."""

    line = "scaling to {workers:worker} is not waited for any longer: {reason}"

    scaling: int
    workers: int
    reason: str
    """``superseded``, ``stopping`` or the stage in which a worker failed."""
