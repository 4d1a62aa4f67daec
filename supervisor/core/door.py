"""Who may stay at the door: whose connection ends when there are too many, and when one has been slow for too long.

1. A newcomer is let in, and the least useful connection goes. One that is being answered never goes.
2. A user pays with his own connections, as long as he has as many as any other whose could go.
3. Some places are kept for root and the supervisor's own user, whatever the others hold.
4. Time is given for asking, and for reading an answer. Waiting for an answer, or for news on a stream, may go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from supervisor.errors import Unavailable


class Doing(IntEnum):
    """What a connection is doing, from the least useful on."""

    ENDING = 0
    """All was said; it is waited for that the client closes."""
    SILENT = 1
    """No whole request head has come on it, ever."""
    IDLE = 2
    """Between two requests."""
    ASKING = 3
    """Part of a request is here: of a later one's head, or of a body."""
    UNREAD = 4
    """Part of an answer waits for its client to read."""
    BUSY = 5
    """A request is here, and being answered."""

    @property
    def may_go(self) -> bool:
        """Whether a newcomer may take its place: nothing that was asked for is lost."""
        return self < Doing.UNREAD


@dataclass(frozen=True, slots=True)
class Caller:
    """One connection; ``number`` counts them in the order in which they came, ``since`` when it began to do this."""

    number: int
    uid: int
    doing: Doing
    since: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections may be open."""

    most: int = 256
    """In all."""
    per_uid: int = 64
    """Of one user, whoever that is."""
    reserved: int = 16
    """Of all, those that only ``privileged`` users take."""
    privileged: frozenset[int] = frozenset({0})
    """Uids."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds."""

    asking: float = 10.0
    """For a whole request, from the connection's beginning or from its first byte."""
    reading: float = 60.0
    """For taking some more of an answer."""


def whom_to_end(callers: Sequence[Caller], uid: int, limits: Limits) -> Caller | None:
    """Make room for a newcomer of that user: who has to go, or None while there is room.

    Raises:
        Unavailable: there is none, and nobody may go.
    """
    count = Counter(caller.uid for caller in callers)
    privileged = uid in limits.privileged
    most = limits.most if privileged else limits.most - limits.reserved
    if count[uid] >= limits.per_uid:
        own = [caller for caller in callers if caller.uid == uid and caller.doing.may_go]
        if not own:
            raise Unavailable(f"{count[uid]} connections of uid {uid} are open and busy")
        return min(own, key=lambda caller: (caller.doing, caller.since, caller.number))
    if len(callers) < most:
        return None
    may_go = [
        caller
        for caller in callers
        if caller.doing.may_go and (privileged or caller.uid == uid or count[caller.uid] > count[uid])
    ]
    if not may_go:
        raise Unavailable(f"{len(callers)} connections are open, and none of them may go")
    return min(may_go, key=lambda caller: (-count[caller.uid], caller.doing, caller.since, caller.number))


def is_overdue(caller: Caller, now: float, deadlines: Deadlines) -> bool:
    """Whether it has been slow for too long."""
    match caller.doing:
        case Doing.SILENT | Doing.ASKING:
            return now - caller.since >= deadlines.asking
        case Doing.UNREAD:
            return now - caller.since >= deadlines.reading
        case _:  # an idle one has the server's own keep-alive timer, one that ends lingers for a time of its own
            return False
