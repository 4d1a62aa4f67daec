"""When a draining worker ends a connection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.drain import (
    ANSWERING,
    LAME_DUCK,
    ORDERLY,
    RULES,
    SHUTDOWN_RESERVE,
    WITH_TASK,
    WITHOUT_REQUEST,
    ClassTimeouts,
    ConnectionClass,
    DrainProgress,
    HurriedStreams,
    before_shutdown,
    ends_at,
    longest,
    overdue_at,
    uniform,
)

KINDS = st.sampled_from(ConnectionClass)
SECONDS = st.floats(0.0, 3600.0)
TIMES = st.builds(ClassTimeouts, SECONDS, SECONDS, SECONDS)
PLACES = st.floats(0.0, 1.0)
SINCE = st.floats(-100.0, 3600.0)
ANYTHING = st.fixed_dictionaries(
    {
        "final": st.booleans(),
        "place": PLACES,
        "lost": SECONDS,
        "hurried": st.sampled_from(HurriedStreams),
        "event_source": st.booleans(),
    }
)
USUAL = ClassTimeouts(requests=30.0, streams=600.0, websockets=0.0)
"""What an operator gets who sets nothing."""

HANDOVER = {
    ConnectionClass.UNREAD: (10.0, 10.0),
    ConnectionClass.IDLE: (30.0, 30.0),
    ConnectionClass.HALF_READ: (10.0, 10.0),
    ConnectionClass.IN_PROGRESS: (30.0, 30.0),
    ConnectionClass.ANSWERED: (30.0, 30.0),
    ConnectionClass.STREAM: (600.0, 600.0),
    ConnectionClass.UPGRADING: (30.0, 30.0),
    ConnectionClass.WEBSOCKET: (0.0, 2.0),
    ConnectionClass.SESSION: (30.0, 30.0),
    ConnectionClass.OTHER: (30.0, 30.0),
}
"""First and last end of each class in a drain with a new generation beside it."""
FINAL = {
    ConnectionClass.UNREAD: (2.0, 2.0),
    ConnectionClass.IDLE: (0.25, 0.4),
    ConnectionClass.HALF_READ: (10.0, 10.0),
    ConnectionClass.IN_PROGRESS: (30.0, 30.0),
    ConnectionClass.ANSWERED: (0.0, 0.0),
    ConnectionClass.STREAM: (30.0, 30.0),
    ConnectionClass.UPGRADING: (30.0, 30.0),
    ConnectionClass.WEBSOCKET: (0.0, 1.0),
    ConnectionClass.SESSION: (0.0, 1.0),
    ConnectionClass.OTHER: (30.0, 30.0),
}
"""The same in a stop of 30 s, with nobody to come after."""


def test_every_class_has_a_rule() -> None:
    """No connection is without a rule for its end."""
    assert set(RULES) == set(HANDOVER) == set(FINAL) == set(ConnectionClass)


def test_every_class_is_with_or_without_its_request() -> None:
    """All but what is over but for its body, and what is not known; what is being answered has a task."""
    rest = {ConnectionClass.ANSWERED, ConnectionClass.OTHER}
    assert sorted([*WITH_TASK, *WITHOUT_REQUEST, *rest]) == sorted(ConnectionClass)
    assert ANSWERING < WITH_TASK
    assert not ORDERLY & ANSWERING, "a request that is ended early is always told of"


def test_the_classes_keep_their_words() -> None:
    """The words by which workers report and operators read the classes are part of the control API."""
    words = "unread idle half-read in-progress answered stream upgrading websocket session other"
    assert [str(kind) for kind in ConnectionClass] == words.split()


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("kind", ConnectionClass)
def test_a_drain_of_thirty_seconds(kind: ConnectionClass, final: bool) -> None:
    """Each class is waited for as long as its clients need, and its ends are spread as wide as they may be."""
    first, last = (FINAL if final else HANDOVER)[kind]
    times = uniform(30.0) if final else USUAL
    assert ends_at(kind, timeouts=times, final=final) == first
    assert ends_at(kind, timeouts=times, final=final, place=1.0) == pytest.approx(last)


@given(kind=KINDS, place=PLACES, lost=SECONDS)
def test_standing_still_takes_no_time_from_who_is_silent(kind: ConnectionClass, place: float, lost: float) -> None:
    """At a stop what is idle or unread has as long while the worker runs as without a pause; nothing else waits."""
    usual, late = (
        ends_at(kind, timeouts=uniform(30.0), final=True, place=place, lost=seconds) for seconds in (0.0, lost)
    )
    waits = kind in (ConnectionClass.UNREAD, ConnectionClass.IDLE)
    assert late == pytest.approx(min(usual + lost, 30.0) if waits else usual)


def test_an_answer_of_five_minutes_is_not_cut_by_a_deploy() -> None:
    """A stream has its own time, however short that of requests is; what is no stream has not."""
    times = ClassTimeouts(requests=3.0, streams=600.0, websockets=0.0)
    assert ends_at(ConnectionClass.STREAM, timeouts=times, final=False) > 300
    assert ends_at(ConnectionClass.IN_PROGRESS, timeouts=times, final=False) == 3.0


@given(kind=KINDS, times=TIMES, said=ANYTHING, since=SINCE)
def test_no_class_outlasts_the_longest_time(
    kind: ConnectionClass, times: ClassTimeouts, said: dict[str, Any], since: float
) -> None:
    """Whatever a connection does, its end lies within the drain; and the drain is no longer than its classes need."""
    assert 0.0 <= ends_at(kind, timeouts=times, since=since, **said) <= times.whole
    assert times.whole <= max(times.requests, times.streams, times.websockets + min(2.0, times.requests / 4))


@given(kind=KINDS, times=TIMES, place=PLACES)
def test_each_class_has_its_own_time(kind: ConnectionClass, times: ClassTimeouts, place: float) -> None:
    """What a class gets depends on its own time alone, as long as another's is not the longest that cuts it."""
    end = ends_at(kind, timeouts=times, final=False, place=place)
    match kind:
        case ConnectionClass.STREAM:
            assert end == times.streams
        case ConnectionClass.WEBSOCKET:
            assert end == pytest.approx(times.websockets + place * min(2.0, times.requests / 4))
        case ConnectionClass.UNREAD | ConnectionClass.HALF_READ:
            assert end == min(10.0, times.whole)
        case _:
            assert end == times.requests


@given(kind=KINDS, seconds=SECONDS, place=PLACES)
def test_a_stop_waits_no_longer(kind: ConnectionClass, seconds: float, place: float) -> None:
    """With nobody to come after, no class is waited for longer than the stop may take, or than at a hand-over."""
    stop = ends_at(kind, timeouts=uniform(seconds), final=True, place=place)
    assert stop <= seconds
    assert stop <= ends_at(kind, timeouts=uniform(seconds), final=False, place=place)


@given(kind=KINDS, times=TIMES, final=st.booleans(), places=st.tuples(PLACES, PLACES))
def test_a_spread_keeps_the_order_and_a_quarter_of_the_drain(
    kind: ConnectionClass, times: ClassTimeouts, final: bool, places: tuple[float, float]
) -> None:
    """Fellows end in the order of their places, and at most a quarter of the time for requests apart."""
    sooner, later = (ends_at(kind, timeouts=times, final=final, place=place) for place in sorted(places))
    assert 0.0 <= later - sooner <= times.requests / 4 + 1e-9


def test_a_short_drain_narrows_the_spread() -> None:
    """In a drain of 2 s the last WebSocket is closed after half a second, not after two."""
    assert ends_at(ConnectionClass.WEBSOCKET, timeouts=uniform(2.0), final=False, place=1.0) == 0.5


@given(kind=KINDS, times=TIMES, said=ANYTHING)
def test_who_is_hurried(kind: ConnectionClass, times: ClassTimeouts, said: dict[str, Any]) -> None:
    """At the limit only what its client asks for again by itself; by an operator's word all that is endless.

    What can move has a moment for it.
    """
    usual = ends_at(kind, timeouts=times, final=said["final"], place=said["place"], lost=said["lost"])
    hurried = {
        HurriedStreams.NONE: False,
        HurriedStreams.EVENT_SOURCES: kind is ConnectionClass.STREAM and said["event_source"],
        HurriedStreams.ALL: kind in (ConnectionClass.STREAM, ConnectionClass.WEBSOCKET, ConnectionClass.SESSION),
    }
    at_once = min(usual, 5.0 if kind is ConnectionClass.SESSION else 0.0)
    assert ends_at(kind, timeouts=times, **said) == (at_once if hurried[said["hurried"]] else usual)


@pytest.mark.parametrize(
    ("hurried", "event_source", "end"),
    [
        (HurriedStreams.ALL, False, 7.0),
        (HurriedStreams.EVENT_SOURCES, True, 7.0),
        (HurriedStreams.EVENT_SOURCES, False, USUAL.streams),
    ],
)
def test_a_hurried_stream(hurried: HurriedStreams, event_source: bool, end: float) -> None:
    """It ends at once, also one that began while its worker drained; and not before it began."""
    answer = ends_at(
        ConnectionClass.STREAM, timeouts=USUAL, final=False, since=7.0, hurried=hurried, event_source=event_source
    )
    assert answer == end


@given(kind=KINDS, final=st.booleans(), since=st.floats(0.0, 29.0))
def test_a_class_that_is_entered_late_waits_as_long(kind: ConnectionClass, final: bool, since: float) -> None:
    """A deadline counts from when the connection came to be of its class, and still ends with the drain."""
    times = uniform(30.0)
    wait = ends_at(kind, timeouts=times, final=final)
    assert ends_at(kind, timeouts=times, final=final, since=since) == pytest.approx(min(since + wait, 30.0))


@given(seconds=st.floats(1.0, 3600.0), place=PLACES, since=st.floats(0.0, 0.5))
def test_a_stop_leaves_the_idle_alone_first(seconds: float, place: float, since: float) -> None:
    """Nothing idle is closed before its client had time to ask once more; all of it soon after that."""
    for kind in (ConnectionClass.IDLE, ConnectionClass.UNREAD):
        end = ends_at(kind, timeouts=uniform(seconds), final=True, since=since, place=place)
        assert since + LAME_DUCK <= end
    idle = ends_at(ConnectionClass.IDLE, timeouts=uniform(seconds), final=True, place=place)
    assert idle < 0.5, "a stop with idle clients takes half a second more than without, and part of that is work"


@given(accepted=st.floats(-100.0, 0.0))
def test_what_was_accepted_long_ago_is_idle(accepted: float) -> None:
    """What has said nothing for long is closed as soon as what is idle; what came just now has 2 s to say something."""
    end = ends_at(ConnectionClass.UNREAD, timeouts=uniform(30.0), final=True, since=accepted)
    assert end == pytest.approx(max(accepted + 2.0, LAME_DUCK))


@given(times=TIMES, seconds=SECONDS)
def test_within(times: ClassTimeouts, seconds: float) -> None:
    """A drain that becomes a stop ends by the stop's time, and no class later than before."""
    less = times.within(seconds)
    assert less.whole <= seconds + 1e-9
    assert less.requests <= times.requests
    assert less.streams <= times.streams
    assert less.websockets <= times.websockets
    assert times.within(times.whole).whole == pytest.approx(times.whole)


def test_the_longest_of_what_is_left() -> None:
    """Until when a drain lasts is told by what it still has; what has no time of its own has that of requests."""
    times = ClassTimeouts(30.0, 600.0, 60.0)
    assert longest([], times) == 30.0
    assert longest(["background", "idle"], times) == 30.0
    assert longest(["websocket"], times) == 60.0
    assert longest(["in-progress", "stream"], times) == 600.0


@given(times=TIMES, began=SECONDS, streamed=st.none() | SECONDS)
def test_when_a_worker_is_overdue(times: ClassTimeouts, began: float, streamed: float | None) -> None:
    """Never before its requests' time is over, never after the longest of all, and later if it had a stream later."""
    drain = DrainProgress(began, times, streamed)
    at = overdue_at(drain)
    assert began + times.requests <= at + 1e-9
    assert at <= began + times.whole
    assert overdue_at(DrainProgress(began, times)) <= at
    if streamed is not None:
        assert at >= min(streamed + times.requests, began + times.whole)
    assert overdue_at(DrainProgress(began, uniform(30.0), streamed)) == began + 30.0


@pytest.mark.parametrize(("stop", "connections"), [(30.0, 25.0), (20.0, 15.0), (8.0, 6.0), (1.0, 0.75)])
def test_the_shutdown_is_part_of_a_stop(stop: float, connections: float) -> None:
    """Connections are cut 5 s before a stop's time is over, or when a quarter of it is left."""
    assert before_shutdown(uniform(stop)) == uniform(connections)


@given(SECONDS)
def test_a_part_is_left_for_the_shutdown(seconds: float) -> None:
    """Of any time: most of it is the connections', and a stop that ends at once ends at once."""
    connections = before_shutdown(uniform(seconds)).whole
    assert 0.75 * seconds <= connections <= seconds
    assert seconds - connections <= SHUTDOWN_RESERVE
