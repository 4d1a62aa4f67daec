"""Listeners that a reload brings and leaves out, told as stories."""

from __future__ import annotations

import pytest

from stillup.core.commands import KeepListeners, Spawn
from stillup.core.events import (
    AbortAsked,
    Exited,
    HeartbeatsDue,
    RollbackAsked,
    StopAsked,
    TookOver,
    WorkerResumed,
)
from stillup.core.listener_key import ListenerKey
from stillup.core.listeners import ListenerState, state_of
from stillup.core.model import Fleet, Release
from stillup.core.policy import Policy
from stillup.core.release import same
from stillup.core.rollback import previous_release
from stillup.core.states import LOST, RolloutState
from stillup.core.values import replace
from tests.core.story import ALSO, NEW, OLD, SOCKET, WEB, Story

HERE = replace(OLD, binds=(WEB,))
THERE = replace(NEW, binds=(ALSO,))
BOTH = replace(NEW, binds=(WEB, ALSO), directory="/srv/both")


def serving(release: Release = HERE, policy: Policy | None = None) -> Story:
    """Worker 1 serves, of a release that listens somewhere."""
    story = Story(1, policy)
    story.reload(release)
    story.ready(1)
    story.serve(1)
    story.now = 60.0
    return story


def moved(policy: Policy | None = None) -> Story:
    """Worker 2 serves elsewhere; worker 1 drains."""
    story = serving(policy=policy)
    story.reload(THERE)
    story.ready(2)
    story.serve(2)
    return story


def heartbeat(story: Story, later: float = 0.0) -> None:
    story.now += later
    story.tell(HeartbeatsDue(story.now))


def closes(story: Story) -> list[KeepListeners]:
    return [order for order in story.orders if isinstance(order, KeepListeners)]


def handed(story: Story) -> list[tuple[ListenerKey, ...]]:
    return [order.listeners for order in story.orders if isinstance(order, Spawn)]


def test_what_is_new_is_handed_to_its_own_generation_alone() -> None:
    """A worker of the old one that is started meanwhile would accept there before the cut-over."""
    story = serving()
    story.reload(THERE)
    assert set(story.fleet.listeners) == {WEB, ALSO}
    assert handed(story) == [(WEB, ALSO)]
    story.tell(Exited(1, "exited 1"))
    assert handed(story) == [(WEB,)]
    assert [state_of(story.fleet, key) for key in story.fleet.listeners] == [
        ListenerState.SERVING,
        ListenerState.ADDED,
    ]


def test_what_is_left_out_is_served_until_nobody_could_want_it_back() -> None:
    """By the new generation; the old one has left and the probation is over before it is closed, in every worker."""
    story = moved()
    assert [state_of(story.fleet, key) for key in story.fleet.listeners] == [
        ListenerState.REMOVED,
        ListenerState.SERVING,
    ]
    heartbeat(story, 31.0)
    assert closes(story) == [], "the old generation drains"
    story.exit(1)
    assert closes(story) == [KeepListeners((ALSO,), (2,))]
    assert story.fleet.listeners == story.fleet.workers[2].listeners == (ALSO,)
    story = moved()
    story.exit(1)
    heartbeat(story, 29.0)
    assert closes(story) == [], "it is on probation"
    story.tell(Exited(2, "exited 1"))
    assert handed(story) == [(WEB, ALSO)], "and so does who takes a dead worker's place"


def test_it_waits_for_who_has_been_handed_it_and_does_not_accept_yet() -> None:
    """Such a worker cannot be told; it accepts, or leaves, within its boot deadline."""
    story = moved()
    story.exit(1)
    heartbeat(story, 29.0)
    story.tell(Exited(2, "exited 1"))
    heartbeat(story, 2.0)
    assert closes(story) == []
    story.ready(3)
    assert closes(story) == [KeepListeners((ALSO,), (3,))]


def test_an_aborted_rollout_takes_its_listeners_along() -> None:
    """When its workers have gone, who hold them, too; nobody who serves has them."""
    story = serving()
    story.reload(THERE)
    story.tell(AbortAsked("test"))
    assert closes(story) == []
    story.exit(2)
    assert closes(story) == [KeepListeners((WEB,))]


def test_a_crash_brings_back_what_was_left_out() -> None:
    """It was never closed; what the crashed release had brought is, in the end."""
    story = serving()
    story.reload(THERE)
    story.ready(2)
    story.serve(2)
    story.exit(1)
    story.die(2, age=1.0)
    assert handed(story) == [(WEB, ALSO)]
    story.die(3, age=1.0)
    assert closes(story) == []
    assert handed(story) == [(WEB, ALSO)]
    assert story.rollout(3).release == HERE
    story.ready(4)
    story.serve(4)
    heartbeat(story, 31.0)
    assert closes(story) == [KeepListeners((WEB,), (4,))]


def test_who_goes_back_later_listens_where_the_service_does() -> None:
    """The port has moved for good by then; the code goes back."""
    story = moved()
    release = previous_release(story.fleet)
    assert release == HERE
    story.exit(1)
    heartbeat(story, 31.0)
    later = previous_release(story.fleet)
    assert later == replace(HERE, binds=(ALSO,))
    story.tell(RollbackAsked(later, later.fingerprint, "test"))
    assert handed(story) == [(ALSO,)]


def test_left_out_and_asked_for_again() -> None:
    """While it is held it is the same one; none of the three generations is without its own."""
    story = moved()
    story.reload(BOTH)
    assert set(story.fleet.listeners) == {WEB, ALSO}
    story.ready(3)
    story.serve(3)
    story.exit(1, 2)
    heartbeat(story, 31.0)
    assert closes(story) == []
    assert [state_of(story.fleet, key) for key in story.fleet.listeners] == [ListenerState.SERVING] * 2


def test_a_longer_probation_does_not_bring_back_what_was_closed() -> None:
    """What crashes then is rolled back to the code before, where the service listens now."""
    story = moved(Policy(probation=5.0))
    story.exit(1)
    heartbeat(story, 6.0)
    story.fleet = replace(story.fleet, policy=Policy(probation=60.0))
    story.tell(Exited(2, "exited 1"))
    story.tell(Exited(3, "exited 1"))
    assert story.rollout(3).release == replace(HERE, binds=(ALSO,))


def test_nothing_is_closed_while_nothing_serves_or_all_of_it_ends() -> None:
    """A start that fails is tried again on the same listeners; a stop closes them itself."""
    story = Story(1, Policy(keep_trying=True))
    story.fleet = replace(story.fleet, listeners=(SOCKET,))
    story.reload(HERE)
    story.tell(Exited(1, "exited 1"))
    assert set(story.fleet.listeners) == {SOCKET, WEB}
    story.reload(HERE)
    story.ready(2)
    story.serve(2)
    assert set(story.fleet.listeners) == {WEB}
    story = moved()
    story.tell(StopAsked("test"))
    story.exit(1)
    heartbeat(story, 31.0)
    assert closes(story) == []


@pytest.mark.parametrize("begun", [True, False])
def test_a_rollout_whose_listeners_did_not_come_back_is_lost(begun: bool) -> None:
    """Only its own workers had them, or nobody."""
    story = serving()
    if begun:
        story.reload(THERE)
        story.ready(2)
    else:
        story.fleet = replace(story.fleet, policy=Policy(max_draining=0))
        story.reload(THERE)
        assert story.rollout(2).state is RolloutState.WAITING
    story.fleet = replace(story.fleet, listeners=(WEB,))
    story.tell(TookOver(frozenset({1, 2} & story.fleet.workers.keys())))
    assert (story.rollout(2).state, story.rollout(2).reason) == (RolloutState.ABORTED, LOST)


def test_a_rollout_that_waits_goes_on_if_its_listeners_are_there() -> None:
    """The next supervisor is started with the same configuration."""
    story = serving()
    story.fleet = replace(story.fleet, policy=Policy(max_draining=0))
    story.reload(THERE)
    story.tell(TookOver(frozenset({1})))
    assert story.rollout(2).state is RolloutState.WAITING


def test_who_comes_back_is_told_what_is_held() -> None:
    """The supervisor before may have died before it said so; who drains has closed all of it."""
    story = serving()
    story.tell(TookOver(frozenset({1})), WorkerResumed(1, draining=False))
    assert closes(story) == [KeepListeners((WEB,), (1,))]
    story = moved()
    story.tell(TookOver(frozenset({1, 2})), WorkerResumed(1, draining=True))
    assert closes(story) == []


def test_where_it_is_not_known_where_a_release_listens() -> None:
    """As on the record of a supervisor that did not say: it has all that is held."""
    story = serving(OLD)
    story.fleet = replace(story.fleet, listeners=(WEB, SOCKET))
    heartbeat(story)
    assert closes(story) == []
    assert state_of(story.fleet, WEB) is ListenerState.SERVING
    assert state_of(Fleet(listeners=(WEB,)), WEB) is ListenerState.SERVING
    assert same(OLD, HERE)
    assert not same(HERE, replace(HERE, binds=(SOCKET,)))
