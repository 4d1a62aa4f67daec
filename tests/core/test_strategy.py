"""Which strategies can bring a generation of so many workers."""

from __future__ import annotations

import pytest

from stillup.core.strategy import Strategy, StrategyKind, canary_workers, check
from stillup.core.values import replace
from stillup.errors import UsageError


def rolling(surge: int, missing: int) -> Strategy:
    return Strategy(StrategyKind.ROLLING, surge, missing)


@pytest.mark.parametrize(
    ("strategy", "size"),
    [
        (Strategy(), 1),
        (Strategy(max_surge=0), 1),
        (rolling(1, 0), 1),
        (rolling(1, 9), 2),
        (rolling(0, 1), 2),
        (rolling(0, 3), 4),
        (rolling(1000, 1000), 1000),
    ],
)
def test_what_can_be(strategy: Strategy, size: int) -> None:
    """There is room for one worker more, or one may be missing and others serve; blue-green has no bounds."""
    check(strategy, size)


@pytest.mark.parametrize(
    ("strategy", "size", "says"),
    [
        (rolling(0, 0), 4, "lets no worker come or leave; take --max-surge 1, or --max-unavailable 1$"),
        (rolling(0, 1), 1, "--max-unavailable 1 leaves none of 1 to serve; take --max-surge 1$"),
        (rolling(0, 4), 4, "leaves none of 4 to serve; take --max-surge 1, or --max-unavailable 3 at most$"),
        (rolling(-1, 1), 4, "--max-surge -1 is not possible: 0 to 1000 workers are"),
        (rolling(1, -1), 4, "--max-unavailable -1 is not possible"),
        (rolling(10**30, 0), 4, "--max-surge 10*0 is not possible"),
    ],
)
def test_what_cannot_be(strategy: Strategy, size: int, says: str) -> None:
    """The refusal names the bounds, the number of workers, and what would do."""
    with pytest.raises(UsageError, match=says) as refused:
        check(strategy, size)
    assert refused.value.code == "usage"


CANARY = Strategy(StrategyKind.CANARY)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        (replace(CANARY, canary=0), "--canary 0 is not possible: 1 to 1000 of the workers are"),
        (replace(CANARY, canary=101, canary_percent=True), "--canary 101% is not possible: 1% to 100% of the workers"),
        (replace(CANARY, canary_time=0.0), "--canary-time 0 with --canary-timeout 600: both are seconds"),
        (replace(CANARY, canary_time=700.0), "--canary-time 700 with --canary-timeout 600: both are seconds"),
        (replace(CANARY, canary_timeout=float("nan")), "--canary-timeout nan: both are seconds"),
        (replace(CANARY, min_requests=0), "--min-requests 0 is not possible: 1 to 1000000000 are"),
        (replace(CANARY, max_error_rate=-1.0), "--max-error-rate -1 is not possible: 0 to 100 of a hundred are"),
        (replace(CANARY, max_latency_ratio=0.5), "--max-latency-ratio 0.5 is not possible: 1 to 1000 times is"),
        (replace(CANARY, rolls=True, max_surge=0), "lets no worker come or leave"),
    ],
)
def test_what_cannot_be_of_a_canary(strategy: Strategy, says: str) -> None:
    """The refusal names what was said, and what would do."""
    with pytest.raises(UsageError, match=says):
        check(strategy, 4)


def test_how_many_are_a_canary() -> None:
    """A percentage is rounded up; one at least, and no more than there are."""
    tenth = replace(CANARY, canary=10, canary_percent=True)
    assert [canary_workers(tenth, size) for size in (1, 10, 11, 25)] == [1, 1, 2, 3]
    assert [canary_workers(replace(CANARY, canary=3), size) for size in (1, 3, 9)] == [1, 3, 3]
