"""When a draining worker ends a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.drain import ENDLESS, RULES, ConnectionClass, ends_at

KINDS = st.sampled_from(ConnectionClass)
TIMEOUTS = st.floats(0.0, 3600.0)
PLACES = st.floats(0.0, 1.0)

HANDOVER = {
    ConnectionClass.UNREAD: (10.0, 10.0),
    ConnectionClass.IDLE: (30.0, 30.0),
    ConnectionClass.HALF_READ: (10.0, 10.0),
    ConnectionClass.IN_PROGRESS: (30.0, 30.0),
    ConnectionClass.ANSWERED: (30.0, 30.0),
    ConnectionClass.STREAM: (30.0, 30.0),
    ConnectionClass.UPGRADING: (30.0, 30.0),
    ConnectionClass.WEBSOCKET: (0.0, 2.0),
    ConnectionClass.OTHER: (30.0, 30.0),
}
"""First and last end of each class in a drain of 30 s with a new generation beside it."""
FINAL = {
    ConnectionClass.UNREAD: (2.0, 2.0),
    ConnectionClass.IDLE: (0.0, 1.0),
    ConnectionClass.HALF_READ: (10.0, 10.0),
    ConnectionClass.IN_PROGRESS: (30.0, 30.0),
    ConnectionClass.ANSWERED: (0.0, 0.0),
    ConnectionClass.STREAM: (30.0, 30.0),
    ConnectionClass.UPGRADING: (30.0, 30.0),
    ConnectionClass.WEBSOCKET: (0.0, 1.0),
    ConnectionClass.OTHER: (30.0, 30.0),
}
"""The same with nobody to come after."""


def test_every_class_has_a_rule() -> None:
    """No connection is without a rule for its end."""
    assert set(RULES) == set(HANDOVER) == set(FINAL) == set(ConnectionClass)


def test_the_classes_keep_their_words() -> None:
    """The words by which workers report and operators read the classes are part of the control API."""
    words = "unread idle half-read in-progress answered stream upgrading websocket other"
    assert [str(kind) for kind in ConnectionClass] == words.split()


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("kind", ConnectionClass)
def test_a_drain_of_thirty_seconds(kind: ConnectionClass, final: bool) -> None:
    """Each class is waited for as long as its clients need, and its ends are spread as wide as they may be."""
    first, last = (FINAL if final else HANDOVER)[kind]
    assert ends_at(kind, timeout=30.0, final=final) == first
    assert ends_at(kind, timeout=30.0, final=final, place=1.0) == last


@given(kind=KINDS, timeout=TIMEOUTS, final=st.booleans(), place=PLACES, hurried=st.booleans())
def test_no_class_outlasts_the_drain(
    kind: ConnectionClass, timeout: float, final: bool, place: float, hurried: bool
) -> None:
    """Whatever a connection does, its end lies within the drain."""
    assert 0.0 <= ends_at(kind, timeout=timeout, final=final, place=place, hurried=hurried) <= timeout


@given(kind=KINDS, timeout=TIMEOUTS, final=st.booleans(), place=PLACES)
def test_a_final_drain_waits_no_longer(kind: ConnectionClass, timeout: float, final: bool, place: float) -> None:
    """With nobody to come after, no class is waited for longer than at a hand-over."""
    assert ends_at(kind, timeout=timeout, final=True, place=place) <= ends_at(
        kind, timeout=timeout, final=False, place=place
    )


@given(kind=KINDS, timeout=TIMEOUTS, final=st.booleans(), places=st.tuples(PLACES, PLACES))
def test_a_spread_keeps_the_order_and_a_quarter_of_the_drain(
    kind: ConnectionClass, timeout: float, final: bool, places: tuple[float, float]
) -> None:
    """Fellows end in the order of their places, and at most a quarter of the drain apart."""
    sooner, later = (ends_at(kind, timeout=timeout, final=final, place=place) for place in sorted(places))
    assert 0.0 <= later - sooner <= timeout / 4 + 1e-9


def test_a_short_drain_narrows_the_spread() -> None:
    """In a drain of 2 s the last WebSocket is closed after half a second, not after two."""
    assert ends_at(ConnectionClass.WEBSOCKET, timeout=2.0, final=False, place=1.0) == 0.5


@given(kind=KINDS, timeout=st.floats(1.0, 3600.0), final=st.booleans(), place=PLACES)
def test_a_hurry_ends_what_is_endless_and_nothing_else(
    kind: ConnectionClass, timeout: float, final: bool, place: float
) -> None:
    """Hurried, streams and WebSockets end at once; every other class is waited for as before."""
    usual = ends_at(kind, timeout=timeout, final=final, place=place)
    hurried = ends_at(kind, timeout=timeout, final=final, place=place, hurried=True)
    assert hurried == (0.0 if kind in ENDLESS else usual)
    assert {ConnectionClass.STREAM, ConnectionClass.WEBSOCKET} == ENDLESS


@given(kind=KINDS, final=st.booleans(), since=st.floats(0.0, 29.0))
def test_a_class_that_is_entered_late_waits_as_long(kind: ConnectionClass, final: bool, since: float) -> None:
    """A deadline counts from when the connection came to be of its class, and still ends with the drain."""
    wait = ends_at(kind, timeout=30.0, final=final)
    assert ends_at(kind, timeout=30.0, final=final, since=since) == min(since + wait, 30.0)
