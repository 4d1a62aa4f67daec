"""Stories of rolling rollouts: how they begin."""

from __future__ import annotations

from stillup.core.commands import BeginDrain
from stillup.core.events import (
    AbortAsked,
)
from stillup.core.policy import Policy
from stillup.core.states import RolloutState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.wire import record_format
from tests.core.story import BESIDE, Story, serving

ONE_MORE = Strategy(StrategyKind.ROLLING)
ONE_LESS = Strategy(StrategyKind.ROLLING, max_surge=0, max_unavailable=1)


def rolling(size: int = 2, strategy: Strategy = ONE_MORE) -> Story:
    """Generation 1 serves, with workers 1 to ``size``; a reload by a strategy has just been asked for."""
    story = serving(size, Policy(strategy=strategy))
    story.reload()
    return story


def shifting() -> Story:
    """Of two workers one has been replaced: 3 serves in the place of 2, which has left; 4 is being started."""
    story = rolling()
    story.ready(3)
    story.serve(3)
    story.exit(2)
    return story


def going_back() -> Story:
    """The same, called off: 4 is being ended, and nothing else has happened."""
    story = shifting()
    story.tell(AbortAsked("test"))
    return story


def take_over(story: Story, *alive: int) -> None:
    """Let another supervisor find these alive, which knows what is on record."""
    story.fleet = replace(record_format.lasting(story.fleet), policy=story.fleet.policy)
    story.take_over(*alive)


def drain(serial: int, packet: int = 64) -> BeginDrain:
    return BeginDrain(serial, BESIDE, final=False, packet=packet)


def state(story: Story, number: int = 2) -> RolloutState:
    return story.rollout(number).state
