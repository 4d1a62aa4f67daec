"""The packets of the adoption queue: what one worker says of a connection is what the next one reads."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.crossing import MOST_READ, PACKET_FOR_ONE
from supervisor.errors import PeerError
from supervisor.wire.adoption import (
    PACKET_ENOUGH,
    PACKET_LIMIT,
    VERSION,
    ConnectionInfo,
    Packet,
    decode,
    encode,
)

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


@pytest.mark.parametrize("version", [-1, 0, VERSION + 1, 10**6])
def test_another_version(version: int) -> None:
    """What needs another understanding is refused with both versions' numbers, and not guessed at."""
    with pytest.raises(PeerError, match=f"version {version}; version {VERSION} is spoken here"):
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
