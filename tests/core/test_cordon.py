"""A service that serves, and to which no new clients are to be sent."""

from __future__ import annotations

import pytest

from stillup.core.availability import CORDONED, why_unready
from stillup.core.commands import BeginAccept, BeginDrain, CloseListeners, LeaveStore, TellCordon
from stillup.core.events import CordonAsked, StopAsked, WorkerResumed
from stillup.core.model import Fleet
from stillup.core.policy import Policy
from stillup.core.rebuild import first_fleet
from stillup.core.states import ServiceState
from stillup.errors import Refused, Unchanged
from stillup.wire.status_line import status_line
from tests.core.story import Story, begin, cutting_over, serving

CORDON, UNCORDON = CordonAsked("test"), CordonAsked("test", on=False)
PARKS = Policy(parks=True)


def cordoned(size: int = 1, policy: Policy | None = None) -> Story:
    story = serving(size, policy)
    story.tell(CORDON)
    return story


def test_only_those_are_told_who_send_clients() -> None:
    """Readiness, and each worker's answers; nobody drains."""
    story = cordoned(2)
    assert why_unready(story.fleet) == CORDONED
    assert story.orders == [TellCordon(1, on=True), TellCordon(2, on=True)]
    assert list(story.news) == ["service.cordoned"]
    assert story.state() is ServiceState.SERVING
    assert "cordoned" in status_line(story.fleet)
    story.tell(UNCORDON)
    assert why_unready(story.fleet) == ""
    assert story.orders == [TellCordon(1, on=False), TellCordon(2, on=False)]


@pytest.mark.parametrize("asked", [CORDON, UNCORDON])
def test_twice_is_once(asked: CordonAsked) -> None:
    """The second is told that nothing has changed."""
    story = cordoned() if asked.on else serving()
    with pytest.raises(Unchanged):
        story.tell(asked)


def test_who_comes_later_is_told_too() -> None:
    """A worker of a later generation with the order to accept; one that has lost its supervisor when it is back."""
    story = cordoned()
    story.reload()
    story.ready(2)
    assert story.orders == [BeginAccept(2), TellCordon(2, on=True)]
    story.take_over(1, 2)
    assert story.fleet.cordoned is not None
    story.tell(WorkerResumed(1, draining=False))
    assert TellCordon(1, on=True) in story.orders
    story.tell(WorkerResumed(2, draining=False))
    assert TellCordon(2, on=True) in story.orders


def test_who_accepts_already_is_told_and_who_does_not_is_not() -> None:
    """A generation that is admitted has been told to accept."""
    story = cutting_over(1)
    story.tell(CORDON)
    assert story.orders == [TellCordon(1, on=True), TellCordon(2, on=True)]
    story = begin(1)
    story.tell(CORDON)
    assert story.orders == []
    assert why_unready(story.fleet) == "the service is starting"


def test_a_stop_afterwards_is_final() -> None:
    """Nothing is parked, and nothing kept: who connects after it is refused, and does not hang."""
    story = cordoned(1, PARKS)
    story.tell(StopAsked("test"))
    assert story.orders[:2] == [LeaveStore(), CloseListeners()]
    assert isinstance(story.orders[2], BeginDrain)
    assert (story.orders[2].final, story.orders[2].park) == (True, False)
    for asked in (CORDON, UNCORDON):
        with pytest.raises(Refused) as refusal:
            story.tell(asked)
        assert refusal.value.code == "stopping"


def test_a_stop_that_nobody_has_announced_parks() -> None:
    """It may be one half of a restart."""
    story = serving(1, PARKS)
    story.tell(StopAsked("test"))
    assert LeaveStore() not in story.orders
    assert story.orders[-1].park  # type: ignore[union-attr]


def test_it_lasts_until_a_start_that_follows_a_stop() -> None:
    """Over the death of the supervisor and of all workers; not over a stop, even one that came to no end."""
    story = cordoned()
    assert first_fleet(Policy(), 1, story.fleet).cordoned == story.fleet.cordoned
    story.tell(StopAsked("test"))
    assert first_fleet(Policy(), 1, story.fleet).cordoned is None
    story.take_over(1)
    assert story.fleet.cordoned is None
    assert first_fleet(Policy(), 1) == Fleet(policy=Policy(), size=1)
