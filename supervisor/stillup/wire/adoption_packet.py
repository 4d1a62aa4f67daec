"""What rides in the adoption queue: established connections, from a worker that drains to one that serves.

One packet holds some connections: their descriptors as SCM_RIGHTS (unix(7)), and in the same order what the next worker
has to know of each. A field that a version lacks has its default, one that it does not know is passed over; what
cannot be understood without a new field needs a new version. So a packet with a session in it, which an earlier stillup
would take for an idle connection, is of another version than one without.

A session (``wire.session_format``) rides in the packet, or in sealed memory whose descriptor follows its connection's.

Any worker may write to the queue. Of what one reads there ``plausible`` is what is kept, so that it can be passed on.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stillup.core.amounts import amount
from stillup.core.crossing import MOST_READ
from stillup.errors import PeerError
from stillup.wire.session_format import SESSION_LIMIT

VERSION: Final = 1
WITH_SESSIONS: Final = 2
"""The version of a packet that has a session in it."""
INLINE_LIMIT: Final = 8 * 1024
"""Bytes of a session that rides in the packet; a larger one rides beside it."""
PACKET_LIMIT: Final = 128 * 1024
"""Bytes; under the least socket buffer that a queue may have (212,992 by default), so never EMSGSIZE."""
PACKET_ENOUGH: Final = 16 * 1024
"""Bytes past which no further connection is put into a packet; one half-read head, at most 64 KiB, still fits."""

LONGEST_LISTENER: Final = 1024
"""Bytes of a listener's name in a packet; the longest that is configured is a host's name."""
MOST_REQUESTS: Final = 2**53
LONGEST_IDLE: Final = 1e9
"""Seconds."""


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
    session: bytes = b""
    """What it is, packed; empty if that is no session, or rides beside it."""
    beside: int = 0
    """Bytes of a session in the memory whose descriptor follows; 0: there is none."""

    @property
    def is_session(self) -> bool:
        """Whether it is a session that goes on."""
        return bool(self.session or self.beside)


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
    version = WITH_SESSIONS if any(info.is_session for info in connections) else VERSION
    packet = _encoder.encode(Packet(version, connections))
    if len(packet) > PACKET_LIMIT:
        raise PeerError(
            f"{amount(len(connections), 'connection')} in {len(packet)} bytes: over the limit of {PACKET_LIMIT}"
        )
    return packet


def encode_some(connections: list[ConnectionInfo]) -> tuple[bytes, int]:
    """One packet of as many as fit into it, the first ones; and how many those are.

    Raises:
        PeerError: the first alone would be longer than PACKET_LIMIT.
    """
    count = len(connections)
    while True:
        try:
            return encode(connections[:count]), count
        except PeerError:
            if count <= 1:
                raise
            count //= 2


def plausible(info: ConnectionInfo, now: float) -> ConnectionInfo | None:
    """What is kept of a description that another worker gave: numbers that can be; None if it is not to be used.

    ``now`` is of CLOCK_MONOTONIC.
    """
    if len(info.read) > MOST_READ or len(_encoder.encode(info.listener)) > LONGEST_LISTENER:
        return None
    if len(info.session) > INLINE_LIMIT or not 0 <= info.beside <= SESSION_LIMIT:
        return None
    idle_since = info.idle_since
    requests = min(max(info.requests, 0), MOST_REQUESTS)
    if idle_since is not None:
        idle_since = min(max(idle_since, now - LONGEST_IDLE), now)
    given = min(info.given, now)
    return ConnectionInfo(info.listener, given, requests, idle_since, info.read, info.session, info.beside)


def decode(packet: bytes) -> list[ConnectionInfo]:
    """Read what another worker sent.

    Raises:
        PeerError: it is no packet of a version that is spoken here.
    """
    try:
        decoded = _decoder.decode(packet)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"not a packet of the adoption queue: {error}") from error
    if decoded.version not in (VERSION, WITH_SESSIONS):
        raise PeerError(f"a packet of version {decoded.version}; spoken are {VERSION} and {WITH_SESSIONS}")
    return decoded.connections
