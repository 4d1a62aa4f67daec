"""When a connection may move to another worker, and of which class it is; without the sockets.

1. A connection moves between two requests, or not at all: nothing in progress, nothing queued, no body still on its
   way, nothing written that has not left.
2. Bytes that were read and not yet answered move with it; where they are not known to the byte, it stays.
3. A connection that stays is looked at again when one of these changes.
4. A WebSocket moves between two messages, and an answer between two parts of its body, once its app has handed it over
   (a *session*), and only where those that may take it over know sessions (``core.adoption``): to a worker of an
   earlier stillup it would be an idle connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from stillup.core.drain import ConnectionClass

PACKET_AMONG_SEVERAL: Final = 16
"""Connections a packet while several workers serve: with large ones the first reader to wake takes them all."""
PACKET_FOR_ONE: Final = 64
"""Connections a packet when a single worker takes them; also the most that a reader must have room for."""
MOST_READ: Final = 64 * 1024
"""Bytes of a half-read head that may move; a longer one completes where it began."""
LONGEST_PAUSE: Final = 86_400.0
"""Seconds; no connection is kept between two workers for longer, whatever the clock of one of them says."""

SOON: Final = 0.1
"""Seconds after which news of the crossing is reported at the earliest, together with what came meanwhile."""
PART: Final = 10
"""So many times as long as a report took the next waits, if it can: one of thousands of connections holds them up."""


UNMOVED_PARSERS: Final = frozenset({"zttp"})
"""Values of ``--http`` of which it is not known to the byte what was read."""


def unmoved(options: Mapping[str, object]) -> list[str]:
    """Why no connection of a release with these options of uvicorn's moves; empty if they may."""
    parser = options.get("http")
    found = [f"--http {parser}"] if parser in UNMOVED_PARSERS else []
    return found + (["TLS"] if options.get("ssl_certfile") or options.get("ssl_keyfile") else [])


class Standing(msgspec.Struct, frozen=True):
    """What a plaintext HTTP/1.1 connection, or a session, is doing, in the words of its parser."""

    asked: bool
    """A whole request head came on it before, here or at an earlier worker."""
    answering: bool
    """A request is in progress or queued; of a session: its app has not handed it over."""
    streaming: bool
    """The head of the answer under way is out."""
    event_source: bool
    """It is ``text/event-stream``, in answer to a GET: its client asks for it again by itself."""
    arriving: bool
    """The body of the newest request, or a message in fragments, is not all here."""
    head: bytes | None
    """What was read of the next request's head: nothing, these bytes, or None for bytes that are not known."""
    unsent: int
    """Bytes that were written and have not left this process."""
    session: bool = False
    """It is a WebSocket whose app can hand it over, or an answer whose app has."""


class ResumeRefusal(StrEnum):
    """Why a session that was handed over does not go on: a WebSocket ends with close code 1012, an answer is cut."""

    UNAWARE = "unaware"
    """The app has accepted it, or begun its answer, without the word that it can take it over."""
    SUBPROTOCOL = "subprotocol"
    """The app has accepted another subprotocol."""
    APP_CLOSED = "app-closed"
    """The app has refused its request, or answers it with another status."""
    APP_FAILED = "app-failed"
    """The app has ended, or failed, before it went on."""
    UNREADABLE = "unreadable"
    """Its request cannot be made again here."""
    NOT_SERVED = "not-served"
    """The worker that took it has no implementation of WebSockets that could go on with it."""
    TOO_LARGE = "too-large"
    """It has more to carry than may travel."""
    NOT_TAKEN = "not-taken"
    """Nobody was left who could take it when its app had handed it over, or it could not leave before its deadline."""
    OTHER_ANSWER = "other-answer"
    """The app has begun an answer of another content type, length or encoding."""


def may_move(standing: Standing) -> bool:
    """Whether another worker could take the connection over now without its client noticing."""
    return not (
        standing.answering
        or standing.arriving
        or standing.unsent
        or standing.head is None
        or len(standing.head) > MOST_READ
    )


def class_of(standing: Standing, *, sessions_move: bool = True) -> ConnectionClass:
    """The class whose rule ends the connection if it does not move (``core.drain``).

    ``sessions_move``: whether there is anybody who could take a session.
    """
    if standing.session:
        return ConnectionClass.SESSION if sessions_move else ConnectionClass.WEBSOCKET
    if standing.answering:
        return ConnectionClass.STREAM if standing.streaming else ConnectionClass.IN_PROGRESS
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


class Crossed(msgspec.Struct, frozen=True):
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
    told_to_close: int = 0
    """Connections that ended in a drain in which every answer says ``Connection: close``, since none could move (TLS,
    protocol classes that are not known) or nobody came after: by that answer, or by their client's own will."""
    sessions_given: int = 0
    """Sessions among those that were given."""
    sessions_adopted: int = 0
    """Sessions among those that were adopted."""
    sessions_refused: int = 0
    """Sessions that were handed over and did not go on, for any reason."""

    def __add__(self, other: Crossed) -> Crossed:
        return Crossed(
            self.given + other.given,
            self.adopted + other.adopted,
            self.lost + other.lost,
            self.closed + other.closed,
            max(self.longest, other.longest),
            self.told_to_close + other.told_to_close,
            self.sessions_given + other.sessions_given,
            self.sessions_adopted + other.sessions_adopted,
            self.sessions_refused + other.sessions_refused,
        )

    def since(self, before: Crossed) -> Crossed:
        """What was added to earlier figures; the longest stays what it is."""
        return Crossed(
            max(0, self.given - before.given),
            max(0, self.adopted - before.adopted),
            max(0, self.lost - before.lost),
            max(0, self.closed - before.closed),
            self.longest,
            max(0, self.told_to_close - before.told_to_close),
            max(0, self.sessions_given - before.sessions_given),
            max(0, self.sessions_adopted - before.sessions_adopted),
            max(0, self.sessions_refused - before.sessions_refused),
        )
