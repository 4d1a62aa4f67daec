"""How a new generation comes: the words of a strategy, and which of them mean something for so many workers."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from stillup.errors import UsageError

MOST: Final = 1000
"""Workers of a surge, or missing at a time: as many as a generation may have."""
LONGEST_WATCH: Final = 7 * 86_400.0
"""Seconds."""
MOST_REQUESTS: Final = 10**9
"""That a verdict may be made to wait for."""
HUNDRED: Final = 100


MOST_STANDBY: Final = 31_536_000
"""Seconds of a standby: a year."""


class StrategyKind(StrEnum):
    """How the workers of a new generation take the places of the old ones."""

    BLUE_GREEN = "blue-green"
    """All at once: the old ones leave when all the new ones serve."""
    ROLLING = "rolling"
    """One after another, within bounds."""
    CANARY = "canary"
    """A few beside the old ones at first, which are watched; the rest only if these do as well as the old ones."""

    @property
    def watches(self) -> bool:
        """Whether a few come first, and are watched."""
        return self in _WATCHING

    @property
    def rolls(self) -> bool:
        """Whether all come within the bounds of ``rolling``."""
        return self in _ROLLING


StrategyName = Literal["blue-green", "rolling", "canary"]
"""The same as words, for type checkers; a test holds them equal."""
_WATCHING: Final = frozenset({StrategyKind.CANARY})
_ROLLING: Final = frozenset({StrategyKind.ROLLING})


class Strategy(msgspec.Struct, frozen=True):
    """A strategy, its bounds for ``rolling``, and what ``canary`` watches; N is the number of workers wanted."""

    kind: StrategyKind = StrategyKind.BLUE_GREEN
    max_surge: int = 1
    """K: processes of workers, with those that drain, are never started over N + K."""
    max_unavailable: int = 0
    """M: no worker is told to leave if fewer than N - M, or none, would serve then."""
    canary: int = 1
    """C: workers that are watched; of a hundred with ``canary_percent``."""
    canary_percent: bool = False
    canary_time: float = 60.0
    """Seconds for which they are watched at least."""
    canary_timeout: float = 600.0
    """Seconds after which a watch without a verdict ends, and the rollout goes back."""
    min_requests: int = 200
    """Requests that either side has to have answered for a verdict."""
    max_error_rate: float = 1.0
    """Of a hundred requests so many more than of the old side's may be answered with a 5xx."""
    max_latency_ratio: float = 2.0
    """The new side's p99 may be so many times the old one's."""
    gated: bool = True
    """Whether the new workers are judged; else it is only awaited whether they live."""
    rolls: bool = False
    """Whether the rest comes as by ``rolling``, within its bounds; else all of it at once, beside the old ones."""
    standby: float = 0.0
    """Seconds that the old workers are paused before they leave, so that a rollback has them at once; not of
    ``rolling``."""

    @property
    def is_bounded(self) -> bool:
        """Whether its workers, or those that come after a watch, come and leave within its bounds."""
        return self.kind.rolls or (self.kind.watches and self.rolls)


def check(strategy: Strategy, size: int) -> None:
    """See that a strategy can bring a generation of that many workers.

    Raises:
        UsageError: it cannot; the message says what could.
    """
    for name, number in (("max-surge", strategy.max_surge), ("max-unavailable", strategy.max_unavailable)):
        if not 0 <= number <= MOST:
            raise UsageError(f"--{name} {number} is not possible: 0 to {MOST} workers are")
    if not 0 <= strategy.standby <= MOST_STANDBY:
        raise UsageError(f"--standby {strategy.standby:g} is not possible: 0 to {MOST_STANDBY} seconds are")
    _check_watch(strategy)
    if not strategy.is_bounded or strategy.max_surge > 0:
        return
    if strategy.max_unavailable == 0:
        message = (
            "--max-surge 0 with --max-unavailable 0 lets no worker come or leave; "
            "take --max-surge 1, or --max-unavailable 1"
        )
        raise UsageError(message)
    if strategy.max_unavailable >= size:
        message = (
            f"--max-surge 0 with --max-unavailable {strategy.max_unavailable} leaves none of {size} to serve; "
            f"{_way_out(size)}"
        )
        raise UsageError(message)


def canary_workers(strategy: Strategy, size: int) -> int:
    """C: how many workers of N are watched, at least 1; a percentage is rounded up."""
    wanted = -(-strategy.canary * size // 100) if strategy.canary_percent else strategy.canary
    return min(max(1, wanted), size)


def untried(strategy: Strategy) -> Strategy:
    """The same without a watch: what comes back has served before."""
    if not strategy.kind.watches:
        return strategy
    kind = StrategyKind.ROLLING if strategy.rolls else StrategyKind.BLUE_GREEN
    return Strategy(kind, strategy.max_surge, strategy.max_unavailable, standby=strategy.standby)


def _check_watch(strategy: Strategy) -> None:
    most = 100 if strategy.canary_percent else MOST
    if not 1 <= strategy.canary <= most:
        unit = "%" if strategy.canary_percent else ""
        raise UsageError(
            f"--canary {strategy.canary}{unit} is not possible: 1{unit} to {most}{unit} of the workers are"
        )
    if not 0 < strategy.canary_time <= strategy.canary_timeout <= LONGEST_WATCH:
        message = (
            f"--canary-time {strategy.canary_time:g} with --canary-timeout {strategy.canary_timeout:g}: "
            f"both are seconds, the first more than 0, the second no less, and {LONGEST_WATCH:g} at most"
        )
        raise UsageError(message)
    if not 1 <= strategy.min_requests <= MOST_REQUESTS:
        raise UsageError(f"--min-requests {strategy.min_requests} is not possible: 1 to {MOST_REQUESTS} are")
    if not 0 <= strategy.max_error_rate <= HUNDRED:
        raise UsageError(f"--max-error-rate {strategy.max_error_rate:g} is not possible: 0 to 100 of a hundred are")
    if not 1 <= strategy.max_latency_ratio <= MOST:
        raise UsageError(f"--max-latency-ratio {strategy.max_latency_ratio:g} is not possible: 1 to {MOST} times is")


def _way_out(size: int) -> str:
    return "take --max-surge 1" if size == 1 else f"take --max-surge 1, or --max-unavailable {size - 1} at most"
