"""When a service is to be sent requests."""

from __future__ import annotations

from stillup.core.availability import why_unready
from stillup.core.events import HeartbeatsDue, ReloadAsked, StopAsked
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
