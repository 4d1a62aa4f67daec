"""What rides in the adoption queue: established connections, from a worker that drains to one that serves.

One packet holds some connections: their descriptors as SCM_RIGHTS (unix(7)), and in the same order what the next worker
has to know of each. A field that a version lacks has its default, one that it does not know is passed over; what
cannot be understood without a new field needs a new VERSION.
"""

from __future__ import annotations

from typing import Final

import msgspec

from supervisor.errors import PeerError

VERSION: Final = 1
PACKET_LIMIT: Final = 128 * 1024
"""Bytes; under the least socket buffer that a queue may have (212,992 by default), so never EMSGSIZE."""
PACKET_ENOUGH: Final = 16 * 1024
"""Bytes past which no further connection is put into a packet; one half-read head, at most 64 KiB, still fits."""


class ConnectionInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A connection between two workers. Times are seconds of CLOCK_MONOTONIC, which all processes here share."""

    listener: str
    """Name of the listener that it came in by."""
    given: float
    """When it was put into the queue."""
    requests: int = 0
    """Requests answered on it so far."""
    idle_since: float | None = None
    """When its newest answer was complete; None before the first."""
    read: bytes = b""
    """What was read of it and not consumed: the beginning of a request's head."""


class Packet(msgspec.Struct, frozen=True):
    """The connections of one packet, in the order of their descriptors."""

    version: int
    connections: list[ConnectionInfo]


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Packet] = msgspec.json.Decoder(Packet)


def encode(connections: list[ConnectionInfo]) -> bytes:
    """One packet.

    Raises:
        PeerError: it would be longer than PACKET_LIMIT.
    """
    packet = _encoder.encode(Packet(VERSION, connections))
    if len(packet) > PACKET_LIMIT:
        raise PeerError(f"{len(connections)} connections in {len(packet)} bytes: over the limit of {PACKET_LIMIT}")
    return packet


def decode(packet: bytes) -> list[ConnectionInfo]:
    """Read what another worker sent.

    Raises:
        PeerError: it is no packet of a version that is spoken here.
    """
    try:
        decoded = _decoder.decode(packet)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"not a packet of the adoption queue: {error}") from error
    if decoded.version != VERSION:
        raise PeerError(f"a packet of version {decoded.version}; version {VERSION} is spoken here")
    return decoded.connections
