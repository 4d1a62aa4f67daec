"""The kinds of events that the watch of a canary goes through; the others are in ``event_types``."""

from __future__ import annotations

from stillup.wire.event_envelope import Envelope


class CanaryWatching(Envelope, frozen=True, tag="canary.watching"):
    """All workers of a canary serve beside those before, and are compared with them from here on."""

    line = "gen {generation} is watched: {workers} of {of} workers, for {seconds:.0f} s"

    rollout: int
    generation: int
    workers: int
    of: int
    """Workers wanted."""
    seconds: float


class CanaryHeld(Envelope, frozen=True, tag="canary.held"):
    """The time of a watch is over, and it cannot be told how the canary does; or another reason for that has come."""

    level = "WARNING"
    line = (
        "gen {generation} is held ({reason}; {new_requests} requests, {old_requests} of the one before): promote, "
        "abort, or it goes back in {seconds:.0f} s"
    )

    rollout: int
    generation: int
    reason: str
    """``few-requests``, ``share``, ``silent``, ``errors``, ``latency`` or ``lag``."""
    seconds: float
    """Until it goes back."""
    old_requests: int
    """Those that the generation before has answered since the watch began; of late, if what lacks is of late."""
    new_requests: int


class CanaryPassed(Envelope, frozen=True, tag="canary.passed"):
    """A canary does as well as what served before, or was not to be judged: the rest of its generation comes."""

    line = "gen {generation} has passed: {why}"

    rollout: int
    generation: int
    why: str
    """Its figures."""


class CanaryPromoted(Envelope, frozen=True, tag="canary.promoted"):
    """Somebody has passed a canary: the rest of its generation comes."""

    line = "gen {generation} is promoted ({why})"

    rollout: int
    generation: int
    why: str
    """Who asked."""
