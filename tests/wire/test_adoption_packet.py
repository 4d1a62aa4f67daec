"""The packets of the adoption queue: what one worker says of a connection is what the next one reads."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.crossing import MOST_READ, PACKET_FOR_ONE
from stillup.errors import PeerError
from stillup.wire.adoption_packet import (
    INLINE_LIMIT,
    LONGEST_LISTENER,
    PACKET_ENOUGH,
    PACKET_LIMIT,
    VERSION,
    WITH_SESSIONS,
    ConnectionInfo,
    Packet,
    decode,
    encode,
    encode_some,
    plausible,
)
from stillup.wire.session_format import SESSION_LIMIT

TEXT = st.text(max_size=20)
TIME = st.floats(0, 1e9)
INFOS = st.builds(ConnectionInfo, TEXT, TIME, st.integers(0, 2**53), st.none() | TIME, st.binary(max_size=200))


def made(connections: list[dict[str, Any]], version: int = VERSION) -> bytes:
    return msgspec.json.encode({"version": version, "connections": connections})


@given(st.lists(INFOS, max_size=PACKET_FOR_ONE))
def test_round_trip(connections: list[ConnectionInfo]) -> None:
    """What was written is read, to the byte and in its order."""
    assert decode(encode(connections)) == connections


@given(st.lists(INFOS, min_size=1, max_size=3), st.dictionaries(TEXT.map("new_{}".format), TEXT, max_size=3))
def test_fields_of_a_later_version_are_passed_over(connections: list[ConnectionInfo], more: dict[str, str]) -> None:
    """A worker that says more than this one knows, of a connection or of the packet, is understood all the same."""
    told = msgspec.json.decode(encode(connections))
    told["connections"] = [{**connection, **more} for connection in told["connections"]]
    assert decode(msgspec.json.encode({**told, **more})) == connections


def test_fields_that_an_earlier_version_lacks() -> None:
    """A worker that says less leaves the defaults: no request yet, never idle, nothing read."""
    assert decode(made([{"listener": "web", "given": 1.5}])) == [ConnectionInfo("web", 1.5, 0, None, b"")]


@pytest.mark.parametrize("version", [-1, 0, WITH_SESSIONS + 1, 10**6])
def test_another_version(version: int) -> None:
    """What needs another understanding is refused with both versions' numbers, and not guessed at."""
    with pytest.raises(PeerError, match=f"version {version}; spoken are {VERSION} and {WITH_SESSIONS}"):
        decode(made([], version))


@st.composite
def noise(draw: st.DrawFn) -> bytes:
    """Any bytes, and packets that were cut, or in which a byte was changed."""
    packet = encode(draw(st.lists(INFOS, max_size=3)))
    place = draw(st.integers(0, len(packet) - 1))
    return draw(
        st.sampled_from(
            [packet[:place], packet[:place] + draw(st.binary(min_size=1, max_size=1)) + packet[place + 1 :]]
        )
        | st.binary(max_size=80)
    )


@given(noise())
def test_any_bytes(packet: bytes) -> None:
    """Whatever comes is understood as connections, or is a PeerError."""
    with contextlib.suppress(PeerError):
        assert all(isinstance(info, ConnectionInfo) for info in decode(packet))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        made([{"given": 1.0}]),
        made([{"listener": "web"}]),
        made([{"listener": "web", "given": 1.0, "read": "not base64!"}]),
        made([{"listener": "web", "given": 1.0, "requests": "3"}]),
    ],
)
def test_no_packet(packet: bytes) -> None:
    """Bytes that are no packet, and packets that leave out or distort what is needed, are a PeerError."""
    with pytest.raises(PeerError, match="not a packet of the adoption queue"):
        decode(packet)


def largest(count: int, listener: str) -> list[ConnectionInfo]:
    """The longest descriptions that a worker puts together: it goes on up to PACKET_ENOUGH bytes that were read."""
    share, over = divmod(PACKET_ENOUGH, count - 1)
    small = [b"\xff" * (share + (number < over)) for number in range(count - 1)]
    times = 123456789.123456789
    return [ConnectionInfo(listener, times, 2**53, times, read) for read in [*small, b"\xff" * MOST_READ]]


@pytest.mark.parametrize("count", [16, PACKET_FOR_ONE])
@pytest.mark.parametrize("listener", ["web", "/run/" + "x" * 103, "\N{SNOWMAN}" * 36])
def test_the_largest_packet(count: int, listener: str) -> None:
    """As many as may go together, with the longest name and heads of which the last is of 64 KiB, fit a packet."""
    connections = largest(count, listener)
    assert sum(len(info.read) for info in connections) == PACKET_ENOUGH + MOST_READ
    packet = encode(connections)
    assert len(packet) <= PACKET_LIMIT
    assert decode(packet) == connections


def test_too_large() -> None:
    """What would not fit is refused where it is made, and not cut on its way."""
    with pytest.raises(PeerError, match=f"2 connections in 349639 bytes: over the limit of {PACKET_LIMIT}"):
        encode([ConnectionInfo("web", 1.0, read=b"x" * PACKET_LIMIT) for _ in range(2)])


def test_what_is_not_said_costs_nothing() -> None:
    """An idle connection's description is short: the queue holds as many as its bytes allow."""
    assert len(msgspec.json.encode(Packet(VERSION, [ConnectionInfo("web", 1.5)]))) < 80


ANY_TIME = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1e308, -1e308, 0.0])
LIES = st.builds(
    ConnectionInfo,
    st.text() | st.sampled_from(["x" * LONGEST_LISTENER, "\x00" * 200, "\N{SNOWMAN}" * 300]),
    ANY_TIME,
    st.integers(),
    st.none() | ANY_TIME,
    st.binary(max_size=50) | st.sampled_from([b"x" * MOST_READ, b"x" * (MOST_READ + 1)]),
)


@given(st.lists(LIES, max_size=PACKET_FOR_ONE))
def test_what_is_kept_can_be_passed_on(lies: list[ConnectionInfo]) -> None:
    """Whatever a worker says of connections, each that is kept goes into a packet, and no number in it is too large."""
    kept = [info for info in (plausible(lie, 1000.0) for lie in lies) if info is not None]
    for info in kept:
        assert decode(encode([info])) == [info]
        assert plausible(info, 1000.0) == info
        assert info.given <= 1000.0
        assert info.idle_since is None or -1e9 <= info.idle_since <= 1000.0
        assert 0 <= info.requests <= 2**53
    passed: list[ConnectionInfo] = []
    while len(passed) < len(kept):
        packet, count = encode_some(kept[len(passed) :])
        assert count >= 1
        passed += decode(packet)
    assert passed == kept


@given(INFOS)
def test_the_truth_is_kept_as_it_is(info: ConnectionInfo) -> None:
    """What a worker says that means well is what is kept."""
    assert plausible(info, 1e9) == info


def test_one_that_no_packet_takes() -> None:
    """It is told of by itself."""
    with pytest.raises(PeerError, match="1 connection in"):
        encode_some([ConnectionInfo("web", 1.0, read=b"x" * PACKET_LIMIT), ConnectionInfo("web", 1.0)])


def test_a_packet_with_a_session_is_of_another_version() -> None:
    """An earlier stillup would take it for an idle connection, and read what its client says as a request."""
    idle, session = ConnectionInfo("web", 1.0), ConnectionInfo("web", 1.0, session=b"x")
    beside = ConnectionInfo("web", 1.0, beside=9)
    assert [msgspec.json.decode(encode(some))["version"] for some in ([idle], [idle, session], [beside])] == [1, 2, 2]
    assert [one.is_session for one in decode(encode([idle, session, beside]))] == [False, True, True]


@pytest.mark.parametrize(
    ("info", "can_be"),
    [
        (ConnectionInfo("web", 1.0, session=b"x" * INLINE_LIMIT), True),
        (ConnectionInfo("web", 1.0, session=b"x" * (INLINE_LIMIT + 1)), False),
        (ConnectionInfo("web", 1.0, beside=SESSION_LIMIT), True),
        (ConnectionInfo("web", 1.0, beside=SESSION_LIMIT + 1), False),
        (ConnectionInfo("web", 1.0, beside=-1), False),
    ],
)
def test_a_session_has_a_size_that_can_be(info: ConnectionInfo, *, can_be: bool) -> None:
    """Kept as it is, or not used at all."""
    assert plausible(info, 2.0) == (info if can_be else None)
