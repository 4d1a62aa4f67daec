"""What is said of the strategy of one reload, and what the policy says beside it."""

from __future__ import annotations

import pytest

from stillup.core.policy import Policy
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.strategy_choice import StrategyChoice, canary_of
from stillup.core.values import replace
from stillup.errors import UsageError

ROLLING, BLUE_GREEN, CANARY = StrategyKind.ROLLING, StrategyKind.BLUE_GREEN, StrategyKind.CANARY
OURS = Strategy(ROLLING, max_surge=3, max_unavailable=2)
TRIED = Strategy(CANARY, canary=10, canary_percent=True, canary_time=5.0, canary_timeout=50.0)


@pytest.mark.parametrize(
    ("choice", "policy", "comes"),
    [
        (StrategyChoice(), OURS, None),
        (StrategyChoice(ROLLING), OURS, OURS),
        (StrategyChoice(ROLLING), Strategy(), Strategy(ROLLING)),
        (StrategyChoice(ROLLING, 0, 1), Strategy(), Strategy(ROLLING, 0, 1)),
        (StrategyChoice(max_surge=0), OURS, Strategy(ROLLING, 0, 2)),
        (StrategyChoice(max_unavailable=0), OURS, Strategy(ROLLING, 3, 0)),
        (StrategyChoice(BLUE_GREEN), OURS, Strategy(BLUE_GREEN, 3, 2)),
        (StrategyChoice(BLUE_GREEN, standby=60), OURS, Strategy(BLUE_GREEN, 3, 2, standby=60)),
        (StrategyChoice(standby=0), Strategy(standby=60), Strategy()),
        (StrategyChoice(ROLLING, standby=0), Strategy(standby=60), Strategy(ROLLING)),
        (StrategyChoice(CANARY), Strategy(), Strategy(CANARY)),
        (StrategyChoice(CANARY, max_surge=2), Strategy(), Strategy(CANARY, 2, 0, rolls=True)),
        (StrategyChoice(CANARY), OURS, Strategy(CANARY, 3, 2, rolls=True)),
        (StrategyChoice(CANARY), replace(TRIED, rolls=True), replace(TRIED, rolls=True)),
        (StrategyChoice(BLUE_GREEN, standby=60), Strategy(CANARY, rolls=True), Strategy(BLUE_GREEN, standby=60)),
        (StrategyChoice(canary=2), TRIED, Strategy(CANARY, canary=2, canary_time=5.0, canary_timeout=50.0)),
        (
            StrategyChoice(canary=20, canary_percent=True, canary_time=60.0, gated=False, min_requests=7),
            TRIED,
            Strategy(CANARY, 1, 0, 20, True, 60.0, 60.0, 7, gated=False),
        ),
        (
            StrategyChoice(canary_time=9.0, canary_timeout=12.0),
            TRIED,
            Strategy(CANARY, canary=10, canary_percent=True, canary_time=9.0, canary_timeout=12.0),
        ),
    ],
)
def test_what_was_not_said_the_policy_says(choice: StrategyChoice, policy: Strategy, comes: Strategy | None) -> None:
    """Word by word; and where nothing was said, nothing is chosen."""
    assert choice.with_rest_of(Policy(strategy=policy)) == comes


@pytest.mark.parametrize("choice", [StrategyChoice(max_surge=0), StrategyChoice(BLUE_GREEN, max_unavailable=0)])
def test_bounds_of_what_has_none(choice: StrategyChoice) -> None:
    """They are refused with the word that is missing, rather than passed over."""
    with pytest.raises(UsageError, match="this reload is blue-green: say --strategy rolling"):
        choice.with_rest_of(Policy())


def test_a_standby_of_what_has_no_room_for_it() -> None:
    """As with bounds."""
    with pytest.raises(UsageError, match="say --strategy blue-green, too"):
        StrategyChoice(standby=60).with_rest_of(Policy(strategy=OURS))
    with pytest.raises(UsageError, match="say --strategy blue-green, too"):
        StrategyChoice(CANARY, standby=60).with_rest_of(Policy(strategy=OURS))


@pytest.mark.parametrize("choice", [StrategyChoice(canary=1), StrategyChoice(ROLLING, gated=False)])
def test_a_watch_of_what_has_none(choice: StrategyChoice) -> None:
    """Likewise: who asks for a watch gets one, or is told."""
    with pytest.raises(UsageError, match=r"that is of canary, and this reload is .*: say --strategy canary"):
        choice.with_rest_of(Policy())


def test_what_may_be_chosen() -> None:
    """All, unless the configuration says which; its own is always among them."""
    some = Policy(strategy=OURS, allow_strategy=(CANARY,))
    assert StrategyChoice(CANARY).with_rest_of(some) is not None
    assert StrategyChoice(ROLLING).with_rest_of(some) == OURS
    with pytest.raises(UsageError, match=r"blue-green is not allowed .*take --strategy rolling or --strategy canary$"):
        StrategyChoice(BLUE_GREEN).with_rest_of(some)


@pytest.mark.parametrize(("text", "means"), [("1", (1, False)), ("12", (12, False)), ("10%", (10, True))])
def test_a_number_or_a_part(text: str, means: tuple[int, bool]) -> None:
    """Of workers."""
    assert canary_of(text) == means


@pytest.mark.parametrize("text", ["", "%", "-1", "1.5", "10 %", "a", "99999", "\u0661"])
def test_neither(text: str) -> None:
    """Is refused with what it could be."""
    with pytest.raises(UsageError, match="a number of workers, such as 1, or a part of them, such as 10%"):
        canary_of(text)
