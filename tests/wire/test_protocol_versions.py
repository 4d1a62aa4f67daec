"""What a worker of an earlier stillup is told."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stillup.wire.handoff_messages import (
    PROTOCOL,
    Adopt,
    Cordon,
    Drain,
    Hurry,
    KeepOnly,
    Lead,
    Pause,
    Reopened,
    Welcome,
)
from stillup.wire.protocol_versions import SPOKEN, for_version, is_known, takes_sessions
from tests.wire.test_handoff_messages import WELCOMES

WHOLE = st.integers(-(2**63), 2**63 - 1)


def test_our_own_version_is_spoken() -> None:
    """The version that a worker says in its hello is among those that the supervisor speaks."""
    assert PROTOCOL in SPOKEN


@given(welcome=WELCOMES, spoken=WHOLE)
def test_a_welcome_names_the_version_that_is_spoken(welcome: Welcome, spoken: int) -> None:
    """Who speaks another version than ours is told in its own, and of all else the same."""
    told = for_version(welcome, spoken)
    assert told == msgspec.structs.replace(welcome, protocol=spoken)


def test_our_own_version_is_told_the_message_itself() -> None:
    """For who speaks our version nothing is changed, nor is a message that names none."""
    welcome = Welcome(PROTOCOL, 1, 1, "a:b", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)
    assert for_version(welcome, PROTOCOL) is welcome
    drain = Drain(5.0, final=False, packet=64, park=True)
    assert for_version(drain, PROTOCOL) is drain


def test_a_worker_of_before_has_one_time_for_all() -> None:
    """Its version has no times by class, and hurries whatever has no end."""
    drain = Drain(5.0, final=False, streams=600.0, websockets=2.0)
    assert for_version(drain, 3) == Drain(5.0, final=False)
    assert for_version(Hurry(every=True), 3) == Hurry()


def test_a_worker_of_before_drains_instead_of_a_pause() -> None:
    """What it does not know it could not do, and it may not go on accepting."""
    pause = Pause(5.0, 600.0, 2.0, packet=16, sessions=True)
    assert for_version(pause, 3) == Drain(5.0, final=False, packet=16)
    assert for_version(pause, 4) == Pause(5.0, 600.0, 2.0, packet=16)
    assert for_version(pause, PROTOCOL) is pause


def test_a_worker_of_before_is_not_told_of_a_cordon() -> None:
    """It would take the word for a breach of the protocol; all others are told of everything."""
    assert not is_known(Cordon(on=True), 3)
    assert not is_known(Adopt(on=False), 3)
    assert not is_known(KeepOnly([7]), 3)
    assert is_known(Cordon(on=True), PROTOCOL)
    assert not is_known(Reopened(), 3)
    assert not is_known(Lead(1), 3)
    assert is_known(Drain(5.0, final=False), 3)


def test_who_knows_sessions_takes_them() -> None:
    """Since version 5; one of before is not told of them, as it would break off at a word that it does not know."""
    assert [takes_sessions(version) for version in sorted(SPOKEN)] == [False, False, True]
    drain = Drain(5.0, final=False, streams=600.0, websockets=2.0, sessions=True)
    assert for_version(drain, 5) is drain
    assert for_version(drain, 4) == Drain(5.0, final=False, streams=600.0, websockets=2.0)
    assert for_version(drain, 3) == Drain(5.0, final=False)
