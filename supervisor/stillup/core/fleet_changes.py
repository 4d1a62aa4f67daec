"""What is counted of a fleet: what happened between two of its values (``core.fleet_comparison``)."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Phase(StrEnum):
    """What a rollout goes through, if it comes that far."""

    WAITING = "waiting"
    BOOTING = "booting"
    CUTTING_OVER = "cutting-over"
    DRAINING = "draining"


class FleetChanges(msgspec.Struct, frozen=True):
    """What happened between two fleets."""

    succeeded: int = 0
    """Rollouts that came to their cut-over."""
    aborted: int = 0
    rolled_back: int = 0
    """Rollouts that had succeeded before."""
    phases: tuple[tuple[Phase, float], ...] = ()
    """The phases that rollouts have come to the end of, each with the seconds that it took."""
    respawns: int = 0
    """Workers that were started for a slot of the serving generation in the place of others."""
    deaths: int = 0
    """Workers that have ended without having been told to, or because they failed."""
    hung: int = 0
    """Workers that were found to hang."""


NO_CHANGES = FleetChanges()
