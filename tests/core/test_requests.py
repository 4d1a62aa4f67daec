"""What operators ask for, told as stories: one reload after another, the end."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginDrain, CloseListeners, Exit, HurryDrain, Kill, Terminate
from stillup.core.drain import uniform
from stillup.core.events import ParkingLost, ReloadAsked, StopAsked
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import GenerationState, RolloutState, ServiceState, WorkerState
from stillup.errors import Refused
from tests.core.story import BESIDE, NEW, OLD, Story, begin, serving, spawn

# One reload after another


def test_a_later_request_supersedes_the_one_under_way() -> None:
    """A second request settles the first as superseded, ends its workers and begins at once."""
    story = serving(size=1)
    story.reload()
    story.now = 61.0
    story.reload(OLD)
    assert story.orders == [Terminate(2), spawn(3, 3, 1)]
    assert story.news["rollout.aborted"] == {
        "rollout": 2,
        "generation": 2,
        "reason": "superseded",
        "why": "",
        "message": "",
        "output": "",
    }
    assert (story.rollout(2).state, story.rollout(2).ended) == (RolloutState.ABORTED, 61.0)
    assert story.rollout(3).previous == 1


def test_a_worker_that_was_told_to_accept_drains_when_superseded() -> None:
    """A superseded worker that may hold clients drains, and so does one whose word that it serves comes only then."""
    story = serving(size=2)
    story.reload()
    story.ready(3, 4)
    story.serve(3)
    story.reload(OLD)
    assert story.orders[:2] == [
        BeginDrain(3, BESIDE, final=False, packet=16),
        BeginDrain(4, BESIDE, final=False, packet=16),
    ]
    story.serve(4)
    assert (story.orders, story.news) == ([], {})
    assert story.generations()[2] is GenerationState.DRAINING


def at_the_limit() -> Story:
    """A supervisor whose generation 2 serves while generation 1 drains, which is as many as may."""
    story = serving(size=1, policy=Policy(max_draining=1))
    story.reload()
    story.ready(2)
    story.serve(2)
    return story


def test_a_reload_waits_while_too_many_generations_drain() -> None:
    """At the limit a reload starts nothing: it waits, and workers that drain are told to end their endless answers."""
    story = at_the_limit()
    story.reload(OLD)
    assert story.orders == [HurryDrain(1)]
    assert story.news == {"rollout.waiting": {"rollout": 3}}
    assert (story.rollout(3).state, story.rollout(3).generation) == (RolloutState.WAITING, None)


def test_a_reload_that_waits_goes_on_when_there_is_room() -> None:
    """With the exit of the last worker that drained, the reload that waited begins."""
    story = at_the_limit()
    story.reload(OLD)
    story.now = 80.0
    story.exit(1)
    assert story.orders == [spawn(3, 3, 1)]
    assert list(story.news) == ["generation.gone", "rollout.done", "rollout.begun"]
    rollout = story.rollout(3)
    assert (rollout.state, rollout.asked, rollout.begun, rollout.previous) == (RolloutState.BOOTING, 60.0, 80.0, 2)


def test_a_reload_that_is_in_a_hurry() -> None:
    """It has all that is endless ended in the generations that drain, at the limit and below it; and not again."""
    story = serving(size=1, policy=Policy(max_draining=2))
    story.reload()
    story.ready(2)
    story.serve(2)
    story.tell(ReloadAsked(OLD, "test", hurry=True))
    assert story.orders == [HurryDrain(1, every=True), spawn(3, 3, 1)]
    story.ready(3)
    story.serve(3)
    story.tell(ReloadAsked(NEW, "test", hurry=True))
    assert story.orders == [
        *(HurryDrain(serial, every=True) for serial in (1, 2)),
        *(HurryDrain(serial) for serial in (1, 2)),
    ], "the second of each says nothing new to the worker"
    story.tell(StopAsked("test"))
    with pytest.raises(Refused, match="stopping"):
        story.tell(ReloadAsked(OLD, "test", hurry=True))
    assert not [order for order in story.orders if isinstance(order, HurryDrain)]


def test_a_reload_that_waits_can_be_superseded() -> None:
    """Of two reloads that would have to wait, the earlier one is off without ever having had a generation."""
    story = at_the_limit()
    story.reload(OLD)
    story.reload(NEW)
    assert story.orders == [HurryDrain(1)]
    assert story.news["rollout.aborted"]["generation"] is None
    story.exit(1)
    assert story.orders == [spawn(3, 3, 1, NEW)]


def test_a_reload_below_the_limit_hurries_nobody() -> None:
    """While generations may still drain side by side, a reload begins at once and leaves their clients alone."""
    story = serving(size=1, policy=Policy(max_draining=2))
    story.reload()
    story.ready(2)
    story.serve(2)
    story.reload(OLD)
    assert story.orders == [spawn(3, 3, 1)]


# The end


def test_a_stop_drains_for_good() -> None:
    """Asked to stop, the service lets its listeners go, has a final drain, and ends with 0."""
    story = serving()
    story.tell(StopAsked("SIGTERM"))
    assert story.orders == [
        CloseListeners(),
        BeginDrain(1, uniform(30.0), final=True, packet=64),
        BeginDrain(2, uniform(30.0), final=True, packet=64),
    ]
    assert story.news == {"service.stopping": {"why": "SIGTERM"}}
    assert story.state() is ServiceState.STOPPING
    story.exit(1)
    assert story.orders == []
    story.exit(2)
    assert story.orders == [Exit(0)]
    assert list(story.news) == ["generation.gone", "service.stopped"]
    assert story.news["service.stopped"] == {"code": 0}
    assert story.state() is ServiceState.STOPPED


def test_a_stop_parks_where_the_queue_outlives_us() -> None:
    """Old and new put what is idle there in large packets; a second stop ends it all for good."""
    story = serving(size=1, policy=Policy(parks=True))
    story.reload()
    story.ready(2)
    story.serve(2)
    story.tell(StopAsked("SIGTERM", insist=True))
    parks = [BeginDrain(serial, uniform(30.0), final=False, packet=64, park=True, sessions=True) for serial in (1, 2)]
    assert story.orders == [CloseListeners(), *parks]
    story.tell(StopAsked("SIGTERM", insist=True))
    assert story.orders[0] == BeginDrain(1, uniform(0.0), final=True)


def test_a_stop_parks_nothing_once_parking_is_lost() -> None:
    """Where the service manager does not keep the queue after all, a stop is a final drain."""
    story = serving(size=1, policy=Policy(parks=True))
    story.tell(ParkingLost())
    assert (story.fleet.policy.parks, story.orders, story.news) == (False, [], {})
    story.tell(StopAsked("test"))
    assert story.orders == [CloseListeners(), BeginDrain(1, uniform(30.0), final=True, packet=64)]


def test_a_stop_asked_again_hurries_and_a_third_time_kills() -> None:
    """Insisted on, a stop ends at once what drains; a third time it kills, and the fourth finds nothing to add."""
    story = serving(size=1)
    story.tell(StopAsked("SIGTERM"))
    story.tell(StopAsked("SIGINT", insist=True))
    assert story.orders == [BeginDrain(1, uniform(0.0), final=True), Terminate(1)]
    assert story.news == {"service.hurried": {"why": "SIGINT"}}
    assert story.timers[Timer(TimerKind.TERM, 1)] == 65.0
    story.tell(StopAsked("SIGINT", insist=True))
    assert story.orders == [Kill(1)]
    story.tell(StopAsked("SIGINT", insist=True))
    assert story.orders == []
    story.exit(1)
    assert story.orders == [Exit(0)]


def test_a_stop_asked_by_two_is_one_stop() -> None:
    """A second request that does not insist cuts no drain short."""
    story = serving(size=1)
    story.tell(StopAsked("SIGTERM"))
    story.tell(StopAsked("somebody else"))
    assert (story.orders, story.news) == ([], {})


def test_what_never_served_does_not_count_as_draining() -> None:
    """While one generation drains, a reload that supersedes another begins at once and hurries no client."""
    story = serving(size=1, policy=Policy(max_draining=2))
    story.reload()
    story.ready(2)
    story.serve(2)
    story.reload()
    story.reload(OLD)
    assert story.orders == [Terminate(3), spawn(4, 4, 1)]


def test_too_many_that_never_served_are_waited_for_in_peace() -> None:
    """Reloads that supersede each other faster than their workers can leave wait for those, and hurry no client."""
    story = serving(size=1, policy=Policy(max_draining=2))
    story.reload()
    story.ready(2)
    story.serve(2)
    story.reload()
    story.reload()
    story.reload(OLD)
    assert story.orders == [Terminate(4)]
    assert story.workers()[1] is WorkerState.DRAINING
    assert story.news["rollout.waiting"] == {"rollout": 5}
    story.exit(3)
    assert story.orders == [spawn(5, 5, 1)]


def test_a_stop_tells_those_that_drain_that_nobody_comes_after() -> None:
    """A generation that drains for its successor is told to drain for good, and is waited for like the other."""
    story = at_the_limit()
    story.tell(StopAsked("SIGTERM"))
    assert story.orders == [
        CloseListeners(),
        BeginDrain(1, uniform(30.0), final=True, packet=64),
        BeginDrain(2, uniform(30.0), final=True, packet=64),
    ]
    story.exit(2)
    assert story.orders == []
    story.exit(1)
    assert story.orders == [Exit(0)]


def test_a_stop_calls_off_the_rollout_under_way() -> None:
    """A reload that a stop overtakes has its outcome, and its workers are ended with the others."""
    story = serving(size=1)
    story.reload()
    story.tell(StopAsked("SIGTERM"))
    assert story.orders == [Terminate(2), CloseListeners(), BeginDrain(1, uniform(30.0), final=True, packet=64)]
    rollout = story.rollout(2)
    assert (rollout.state, rollout.reason, rollout.failure) == (RolloutState.ABORTED, "stopping", None)


def test_a_stop_during_the_cut_over_makes_the_drain_final() -> None:
    """New workers that may hold clients already are left to drain for good, not for the generation before them."""
    story = serving(size=1)
    story.reload()
    story.ready(2)
    story.tell(StopAsked("SIGTERM"))
    assert [order for order in story.orders if isinstance(order, BeginDrain)][-1] == BeginDrain(
        2, uniform(30.0), final=True, packet=64
    )
    assert story.generations() == {1: GenerationState.DRAINING, 2: GenerationState.DRAINING}


def test_a_stop_calls_off_the_reload_that_waits() -> None:
    """A reload that waits when the service is stopped never begins, though there would be room for it then."""
    story = at_the_limit()
    story.reload(OLD)
    story.tell(StopAsked("SIGTERM"))
    story.exit(1, 2)
    assert story.orders == [Exit(0)]
    assert story.rollout(3).reason == "stopping"


def test_a_stop_of_the_first_boot_is_no_failure() -> None:
    """A service that is stopped before it served leaves with 0."""
    story = begin(size=1)
    story.tell(StopAsked("SIGINT"))
    assert story.orders == [Terminate(1), CloseListeners()]
    story.exit(1)
    assert story.orders == [Exit(0)]


def test_a_supervisor_that_has_no_workers_stops_at_once() -> None:
    """With nothing to wait for, the request itself is the end."""
    story = Story(1, Policy())
    story.tell(StopAsked("SIGINT"))
    assert story.orders == [CloseListeners(), Exit(0)]


def test_a_stopping_service_takes_no_reload() -> None:
    """From the first request to stop on, a reload is refused with the way out of it."""
    story = serving(size=1)
    story.tell(StopAsked("SIGTERM"))
    for _ in range(2):
        with pytest.raises(Refused, match="start it again to run a new release") as caught:
            story.reload()
        assert caught.value.code == "stopping"
        if 1 in story.fleet.workers:
            story.exit(1)


def test_a_stopped_service_cannot_be_stopped() -> None:
    """After the end there is nothing to ask for."""
    story = Story(1, Policy())
    story.tell(StopAsked("SIGINT"))
    with pytest.raises(Refused, match="no 'stop' while stopped"):
        story.tell(StopAsked("SIGINT"))
