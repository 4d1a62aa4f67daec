"""The audit: who asked for a change, and what came of it; one event, and so one line of the log, a request.

1. It is told when the request is accepted or turned down, not when a caller that waits for its outcome is answered.
2. The history belongs to those with a right. What others are denied is told in full as long as such events are few
   among the last ones, in all and of one user; beyond that they are counted, and told as a number, at times further and
   further apart. So nobody pushes out what others have done by asking for what they may not.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from stillup.core.access import Principal, Role
from stillup.errors import NotPermitted, Refused
from stillup.wire.event_feed import ACCEPTED, DENIED
from stillup.wire.problem_types import PROBLEM_TYPES

LOOKS: Final = frozenset({"GET", "HEAD"})
"""Methods that ask for no change (RFC 9110, 9.2.1); a request with one of these is not told of."""
AMONG: Final = 1_000
"""Events: as many as the history keeps."""
MOST_DENIED: Final = 250
"""Denials that are told in full, among so many events."""
MOST_OF_ONE: Final = 50
"""The same of one user; workers count as one of their own."""
FIRST_PAUSE: Final = 60.0
"""Seconds until those that were only counted are told as a number; twice as long each time that there are more."""
LONGEST_PAUSE: Final = 3600.0
"""The most of these; after as long without one it is FIRST_PAUSE again."""

Announce = Callable[[str, Mapping[str, Any]], None]


class Audit:
    """All requests for a change."""

    def __init__(
        self,
        announce: Announce,
        number: Callable[[], int] = lambda: 0,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell by ``announce``; ``number`` is that of the next event, ``refused`` counts each caller that is denied."""
        self.announce = announce
        self._number = number
        self._refused = refused
        self._told: deque[tuple[int, tuple[int, bool]]] = deque()
        """The numbers of denials that were told in full, and whose they were."""
        self._untold: Counter[int] = Counter()
        """By uid."""
        self._pause = FIRST_PAUSE
        self._quiet = False
        """Whether there was none in the last pause."""
        self._timer: asyncio.TimerHandle | None = None

    def request(self, method: str, path: str, principal: Principal, role: Role) -> Audited:
        """One request."""
        return Audited(self, method, path, principal, role)

    def denied(self, principal: Principal, *, looks: bool) -> bool:
        """Count one that was denied; whether it is to be told in full. One that only ``looks`` never is."""
        self._refused()
        if looks:
            return False
        number = self._number()
        while self._told and self._told[0][0] <= number - AMONG:
            self._told.popleft()
        who = principal.uid, principal.for_worker
        if len(self._told) < MOST_DENIED and sum(whose == who for _, whose in self._told) < MOST_OF_ONE:
            self._told.append((number, who))
            return True
        self._untold[principal.uid] += 1
        if self._timer is None:
            self._wait(self._pause)
        return False

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tell_number)

    def _tell_number(self) -> None:
        self._timer = None
        was_quiet, self._quiet = self._quiet, not self._untold
        if self._quiet and was_quiet:
            self._pause, self._quiet = FIRST_PAUSE, False
            return
        if self._quiet:
            self._wait(LONGEST_PAUSE)
            return
        (uid, _), *_ = self._untold.most_common(1)
        data = {"count": self._untold.total(), "seconds": self._pause, "uid": uid, "uids": len(self._untold)}
        self._untold.clear()
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.announce("requests.denied", data)
        self._wait(self._pause)

    def close(self) -> None:
        """Tell no number any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Audited:
    """One request. As a context it tells what its block raises, or that it was accepted if nobody has told before."""

    def __init__(self, audit: Audit, method: str, path: str, principal: Principal, role: Role) -> None:
        self._audit = audit
        self._method = method
        self._path = path
        self._principal = principal
        self._role = role
        self._told = method in LOOKS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        match error:
            case None:
                self.accepted()
            case Refused():
                # One who cannot be looked at might be a worker, and who has no role is denied whatever else is wrong.
                without_right = self._role is Role.NONE or bool(self._principal.unseen)
                if isinstance(error, NotPermitted) or without_right:
                    self._told = not self._audit.denied(self._principal, looks=self._told)
                outcome = DENIED if isinstance(error, NotPermitted) else error.code
                self._tell(outcome, PROBLEM_TYPES[error.code].status)
            case _:
                self._tell("bug", PROBLEM_TYPES["bug"].status)

    def accepted(self, status: int = 202, *, rollout: int | None = None, scaling: int | None = None) -> None:
        """The engine has taken the request."""
        self._tell(ACCEPTED, status, rollout, scaling)

    def _tell(self, outcome: str, status: int, rollout: int | None = None, scaling: int | None = None) -> None:
        if self._told:
            return
        self._told = True
        who = self._principal
        data = {
            "method": self._method,
            "path": self._path,
            "outcome": outcome,
            "status": status,
            "role": self._role,
            "rollout": rollout,
            "scaling": scaling,
            "principal": {
                "uid": who.uid,
                "gid": who.gid,
                "pid": who.pid,
                "login_uid": who.login_uid,
                "exe": who.exe,
            },
        }
        self._audit.announce("request.audited", data)
