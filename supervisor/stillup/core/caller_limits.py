"""Which connection to the control server ends when there are too many, and when one has been slow for too long.

1. A new connection is let in, and the least useful one ends for it. One that is being answered is never ended.
2. A user's new connection ends another one of the same user, unless other users have more that could end.
3. Some connections are reserved for root and the supervisor's own user, however many the others hold.
4. Of one user's connections the last are for processes that have few: one that has many keeps out none of the others.
5. Callers without a right share a few connections, which end for anybody who has one, whatever they do.
6. Time is given for asking, and for reading an answer. Waiting for an answer, or for news on a stream, may go on; so
   many of these requests at a time that there is room for others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum

import msgspec

from stillup.errors import Unavailable


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
        """Whether it may be ended for a new one: nothing that was asked for is lost."""
        return self < Doing.UNREAD


class Newcomer(msgspec.Struct, frozen=True):
    """Who connects, by the kernel's word."""

    uid: int
    pid: int = 0
    has_right: bool = True
    """Whether they have a role here, as far as that is known: a worker's child is found out a moment later."""


class CallerConnection(msgspec.Struct, frozen=True):
    """One connection; ``number`` counts them in the order in which they came, ``since`` when it began to do this."""

    number: int
    uid: int
    doing: Doing
    since: float
    pid: int = 0
    has_right: bool = True


class Limits(msgspec.Struct, frozen=True):
    """How many connections may be open."""

    most: int = 256
    """In all."""
    per_uid: int = 64
    """Of one user, whoever that is."""
    reserved: int = 16
    """Of all, those that only ``privileged`` users take."""
    privileged: frozenset[int] = frozenset({0})
    """Uids."""
    for_few: int = 16
    """Of ``per_uid``, those that only processes take which have less than ``few``."""
    few: int = 4
    without_right: int = 16
    """Of all callers together who have no right."""
    lasting: int = 48
    """Requests of one user that may go on for long: streams, and those that wait for an outcome."""
    lasting_of_others: int = 128
    """The same of all users who are not ``privileged``."""


class Deadlines(msgspec.Struct, frozen=True):
    """Seconds."""

    asking: float = 10.0
    """For a whole request, from the connection's beginning or from its first byte."""
    reading: float = 60.0
    """For taking some more of an answer."""


def connection_to_end(
    callers: Sequence[CallerConnection], newcomer: Newcomer, limits: Limits
) -> CallerConnection | None:
    """The connection that ends for a new one; None while there is room for both.

    Raises:
        Unavailable: there is no room, and none may be ended.
    """
    uid = newcomer.uid
    if not newcomer.has_right:
        return _without_right(callers, uid, limits)
    rightful = [caller for caller in callers if caller.has_right]
    count = Counter(caller.uid for caller in rightful)
    processes = Counter((caller.uid, caller.pid) for caller in rightful)
    of_process = processes[uid, newcomer.pid]
    privileged = uid in limits.privileged
    most = limits.most if privileged else limits.most - limits.reserved
    if count[uid] >= limits.per_uid - (limits.for_few if of_process >= limits.few else 0):
        own = [caller for caller in rightful if caller.uid == uid and caller.doing.may_go]
        own = [caller for caller in own if processes[uid, caller.pid] >= of_process]
        if not own:
            raise Unavailable(f"busy: {count[uid]} connections of uid {uid} are open, and being answered")
        return min(own, key=lambda caller: (-processes[uid, caller.pid], *_usefulness(caller)))
    if len(callers) < most:
        return None
    if len(rightful) < len(callers):
        return min((caller for caller in callers if not caller.has_right), key=_usefulness)
    may_go = [
        caller
        for caller in callers
        if caller.doing.may_go and (privileged or caller.uid == uid or count[caller.uid] > count[uid])
    ]
    if not may_go:
        raise Unavailable(f"busy: {len(callers)} connections are open, and none of them may go")
    return min(may_go, key=lambda caller: (-count[caller.uid], *_usefulness(caller)))


def _without_right(callers: Sequence[CallerConnection], uid: int, limits: Limits) -> CallerConnection | None:
    """The same for a caller without a right: only others of these can end for it."""
    others = [caller for caller in callers if not caller.has_right]
    if len(others) < limits.without_right and len(callers) < limits.most - limits.reserved:
        return None
    count = Counter(caller.uid for caller in others)
    may_go = [
        caller for caller in others if caller.doing.may_go and (caller.uid == uid or count[caller.uid] > count[uid])
    ]
    if not may_go:
        raise Unavailable(f"busy: {len(others)} connections of callers without a role are open")
    return min(may_go, key=lambda caller: (-count[caller.uid], *_usefulness(caller)))


def _usefulness(caller: CallerConnection) -> tuple[Doing, float, int]:
    return caller.doing, caller.since, caller.number


def may_last(uid: int, lasting: Mapping[int, int], limits: Limits) -> bool:
    """Whether one more request of that user may go on for long; ``lasting``: how many do, by uid."""
    if uid in limits.privileged:
        return lasting.get(uid, 0) < limits.lasting
    others = sum(count for one, count in lasting.items() if one not in limits.privileged)
    return lasting.get(uid, 0) < limits.lasting and others < limits.lasting_of_others


def is_overdue(caller: CallerConnection, now: float, deadlines: Deadlines) -> bool:
    """Whether it has been slow for too long."""
    match caller.doing:
        case Doing.SILENT | Doing.ASKING:
            return now - caller.since >= deadlines.asking
        case Doing.UNREAD:
            return now - caller.since >= deadlines.reading
        case _:  # an idle one has the server's own keep-alive timer, one that ends has a deadline of its own
            return False
