"""The audit: who asked for a change, and what came of it; one event, and so one line of the log, a request.

It is told when the request is accepted or turned down, not when whoever waits for its outcome is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from supervisor.core.access import Principal, Role
from supervisor.errors import NotPermitted, Refused
from supervisor.wire.events import ACCEPTED, DENIED
from supervisor.wire.operations import PROBLEMS

LOOKS: Final = frozenset({"GET", "HEAD"})
"""Methods that ask for no change (RFC 9110, 9.2.1); a request with one of these is not told of."""

Announce = Callable[[str, Mapping[str, Any]], None]


class Audited:
    """One request. As a context it tells what its block raises, or that it was accepted if nobody has told before."""

    def __init__(self, announce: Announce, method: str, path: str, principal: Principal, role: Role) -> None:
        self._announce = announce
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
            case NotPermitted():
                self._tell(DENIED, PROBLEMS[error.code])
            case Refused():
                self._tell(error.code, PROBLEMS.get(error.code, 409))
            case _:
                self._tell("bug", PROBLEMS["bug"])

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
        self._announce("request.audited", data)
