"""When a service is to be sent requests."""

from __future__ import annotations

import pytest

from stillup.core.availability import agent_word, why_unready
from stillup.core.events import CordonAsked, HeartbeatsDue, ReloadAsked, StopAsked
from stillup.core.strategy import Strategy, StrategyKind
from tests.core.story import NEW, begin, draining, serving


def test_it_is_ready_while_a_worker_serves() -> None:
    """One is enough; and during a reload there always is one."""
    assert why_unready(serving(2).fleet) == ""
    assert why_unready(draining(1).fleet) == ""
    story = serving(2)
    story.die(1, age=40)
    assert why_unready(story.fleet) == ""


def test_it_is_not_where_none_does() -> None:
    """Not before the first, not after the last: a generation that serves may have lost every worker."""
    assert why_unready(begin(2).fleet) == "the service is starting"
    story = serving(2)
    story.die(1, age=40)
    story.die(2, age=40)
    assert why_unready(story.fleet) == "0 of 2 workers serve"
    story = serving(2)
    story.tell(StopAsked("test"))
    assert why_unready(story.fleet) == "the service is stopping"


def test_a_worker_that_hangs_serves_nobody() -> None:
    """It is told apart, since the log of that worker says more."""
    story = serving(1)
    for at in (61.0, 200.0):
        story.now = at
        story.tell(HeartbeatsDue(at))
    assert why_unready(story.fleet) == "0 of 1 workers serve; 1 hang"


def test_while_two_generations_serve_either_will_do() -> None:
    """The last worker of the old one, or the first of the new one; without both as many are missing as were wanted."""
    story = serving(2)
    story.tell(ReloadAsked(NEW, "test", strategy=Strategy(StrategyKind.ROLLING, max_surge=0, max_unavailable=1)))
    assert why_unready(story.fleet) == ""
    story.exit(1)
    story.ready(3)
    story.serve(3)
    story.exit(2)
    assert why_unready(story.fleet) == ""
    story.die(3, age=40)
    assert why_unready(story.fleet) == "0 of 2 workers serve"


@pytest.mark.parametrize(
    ("size", "dead", "word"), [(2, 0, "up 100%"), (2, 1, "up 50%"), (3, 1, "up 66%"), (3, 3, "down #")]
)
def test_an_agent_check_is_told_a_weight(size: int, dead: int, word: str) -> None:
    """By how many serve of those that are wanted."""
    story = serving(size)
    for serial in range(1, dead + 1):
        story.die(serial, age=40)
    assert agent_word(story.fleet) == word + (f"0 of {size} workers serve" if dead == size else "")


def test_an_agent_check_knows_who_is_to_get_no_new_client() -> None:
    """Cordoned or stopping it serves those whom it has; before its first worker serves it serves nobody."""
    assert agent_word(begin(2).fleet) == "down #the service is starting"
    story = serving(2)
    story.tell(CordonAsked("test", on=True))
    assert agent_word(story.fleet) == "up 0%"
    story.die(1, age=40)
    story.die(2, age=40)
    assert agent_word(story.fleet) == "down #0 of 2 workers serve"
    story = serving(2)
    story.tell(StopAsked("test"))
    assert agent_word(story.fleet) == "up 0%"


def test_an_agent_check_is_told_no_more_than_all() -> None:
    """While two generations serve more may serve than are wanted."""
    story = serving(2)
    story.tell(ReloadAsked(NEW, "test", strategy=Strategy(StrategyKind.ROLLING, max_surge=2)))
    story.ready(3)
    story.serve(3)
    assert agent_word(story.fleet) == "up 100%"
