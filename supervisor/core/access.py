"""Who may do what on the control socket.

1. What is not allowed is denied, whatever the mode of the socket's file.
2. Root and the supervisor's own user are admin. Everybody else is what the configuration says of his uid, or of one of
   his groups; the highest of these counts.
3. The overflow uid may be anybody, so no rule is about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.errors import NotPermitted

OVERFLOW_UID = 65534
"""What the kernel shows for a user that this user namespace does not map (user_namespaces(7)): it may be anybody."""


class Role(StrEnum):
    """What somebody may do; each includes those before it."""

    NONE = "none"
    VIEWER = "viewer"
    """Looks."""
    OPERATOR = "operator"
    """Reloads, rolls back, scales, aborts; and sees what failed workers wrote."""
    ADMIN = "admin"
    """Stops the service, replaces the supervisor's program, reads what is said on the sockets."""

    def covers(self, other: Role) -> bool:
        """Whether who has this role may do what needs the other."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who connected, by the kernel's word, as of connect(). A pid of 0 is a process of another pid namespace."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int] = frozenset()
    """Supplementary groups."""
    login_uid: int | None = None
    """Who logged in in the first place (``/proc/PID/loginuid``), for the record; None if nobody, or not known."""
    exe: str = ""
    """The program, for the record; empty if it is not known."""

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says."""

    uids: Mapping[int, Role] = field(default_factory=dict)
    gids: Mapping[int, Role] = field(default_factory=dict)


def role_of(principal: Principal, rules: Rules, *, own_uid: int) -> Role:
    """The role of whoever connected; ``own_uid`` is the supervisor's."""
    if principal.uid == OVERFLOW_UID:
        return Role.NONE
    if principal.uid in (0, own_uid):
        return Role.ADMIN
    held = [rules.gids.get(gid, Role.NONE) for gid in (principal.gid, *principal.groups)]
    held.append(rules.uids.get(principal.uid, Role.NONE))
    return next(role for role in reversed(Role) if role in held)


def admit(principal: Principal, held: Role, needed: Role) -> None:
    """Let those pass whose role covers the one that is needed.

    Raises:
        NotPermitted: it does not.
    """
    if not held.covers(needed):
        has = f"has the role '{held}'" if held is not Role.NONE else "has no role here"
        raise NotPermitted(f"{principal} {has}; this needs '{needed}'")
