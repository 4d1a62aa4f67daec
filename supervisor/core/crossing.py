"""When a connection may move to another worker: the rules of the crossing, without the sockets.

1. A connection moves between two requests, or not at all: nothing in progress, nothing queued, no body still on its
   way, nothing written that has not left.
2. Bytes that were read and not yet answered move with it; where they are not known to the byte, it stays.
3. Whatever stays is looked at again when one of these changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from supervisor.core.drain import ConnectionClass

PACKET_AMONG_SEVERAL: Final = 16
"""Connections a packet while several workers serve: with large ones the first reader to wake takes them all."""
PACKET_FOR_ONE: Final = 64
"""Connections a packet when a single worker takes them; also the most that a reader must have room for."""
MOST_READ: Final = 64 * 1024
"""Bytes of a half-read head that may move; a longer one completes where it began."""

SOON: Final = 0.1
"""Seconds after which news of the crossing is reported at the earliest, together with what came meanwhile."""
PART: Final = 10
"""So many times as long as a report took the next waits, if it can: one of thousands of connections holds them up."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a plaintext HTTP/1.1 connection is doing, in the words of its parser."""

    asked: bool
    """A whole request head came on it before, here or at an earlier worker."""
    answering: bool
    """A request is in progress or queued."""
    endless: bool
    """What it is answered is ``text/event-stream``."""
    arriving: bool
    """The answer is out, and the request's body is not all here."""
    head: bytes | None
    """What was read of the next request's head: nothing, these bytes, or None for bytes that are not known."""
    unsent: int
    """Bytes that were written and have not left this process."""


def may_move(standing: Standing) -> bool:
    """Whether another worker could take the connection over now without its client noticing."""
    return not (
        standing.answering
        or standing.arriving
        or standing.unsent
        or standing.head is None
        or len(standing.head) > MOST_READ
    )


def class_of(standing: Standing) -> ConnectionClass:
    """The class whose rule ends the connection if it does not move (``core.drain``)."""
    if standing.answering:
        return ConnectionClass.STREAM if standing.endless else ConnectionClass.IN_PROGRESS
    if standing.arriving:
        return ConnectionClass.ANSWERED
    if standing.head != b"":
        return ConnectionClass.HALF_READ
    return ConnectionClass.IDLE if standing.asked else ConnectionClass.UNREAD


def packet_limit(serving: int) -> int:
    """How many connections a packet may hold while so many workers are there to take them."""
    return PACKET_FOR_ONE if serving <= 1 else PACKET_AMONG_SEVERAL


def news_waits(took: float, left: float) -> float:
    """Seconds until news is reported, if the last report took ``took`` and the next beat is due in ``left``."""
    return max(SOON, min(PART * took, left))


@dataclass(frozen=True, slots=True)
class Crossed:
    """Figures of the crossing; of one worker, or added up."""

    given: int = 0
    """Connections put into the adoption queue."""
    adopted: int = 0
    """Connections taken from it."""
    lost: int = 0
    """Connections that the kernel dropped on the way in, for want of a descriptor, or that came with no readable
    description: each one a client that saw its connection end."""
    closed: int = 0
    """Connections without a request in progress that a drain had to end."""
    longest: float = 0.0
    """Seconds; the longest that one connection was between two workers."""

    def __add__(self, other: Crossed) -> Crossed:
        return Crossed(
            self.given + other.given,
            self.adopted + other.adopted,
            self.lost + other.lost,
            self.closed + other.closed,
            max(self.longest, other.longest),
        )
