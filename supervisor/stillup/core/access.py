"""What each caller may do on the control socket.

1. What is not allowed is denied, whatever the mode of the socket's file.
2. Root and the supervisor's own user are admin. Any other caller has the highest role that the configuration gives to
   their uid, or to one of their groups.
3. The overflow uid may be anybody, so no rule is about it, and none about the overflow gid.
4. The service's own workers, and whatever they have started, are refused whatever their uid: an app is not its own
   operator.
5. A caller whose process could not be looked at may at most view: it might be a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from stillup.core.values import replace
from stillup.errors import NotPermitted, Refused

OVERFLOW_UID = 65534
"""What the kernel shows for a user that this user namespace does not map (user_namespaces(7)): it may be anybody.

The same number stands for groups.
"""


class Role(StrEnum):
    """What somebody may do; each includes those before it."""

    NONE = "none"
    VIEWER = "viewer"
    """Looks."""
    OPERATOR = "operator"
    """Reloads, rolls back, scales, aborts; and sees what failed workers wrote and their apps said."""
    ADMIN = "admin"
    """Stops the service, replaces the supervisor's program, reads what is said on the sockets."""

    def covers(self, other: Role) -> bool:
        """Whether who has this role may do what needs the other."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


class Principal(msgspec.Struct, frozen=True):
    """A caller, by the kernel's word, as of connect(). A pid of 0 is a process of another pid namespace."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int] = frozenset()
    """Supplementary groups."""
    login_uid: int | None = None
    """The user that logged in in the first place (``/proc/PID/loginuid``), for the record; None if not known."""
    exe: str = ""
    """The program, for the record; empty if it is not known."""
    for_worker: bool = False
    """Whether it is one of our workers, or was started by one."""
    unseen: str = ""
    """Why nothing is known of the process but the kernel's word; empty if it was looked at."""

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


ANYBODY = Principal(OVERFLOW_UID, OVERFLOW_UID, 0)
"""A caller over TCP: the kernel says nothing of them."""


class Rules(msgspec.Struct, frozen=True):
    """What the configuration says."""

    uids: Mapping[int, Role] = msgspec.field(default_factory=dict)
    gids: Mapping[int, Role] = msgspec.field(default_factory=dict)

    def letting_view(self, gid: int) -> Rules:
        """The same, and the members of that group are viewers at least."""
        held = self.gids.get(gid, Role.NONE)
        return self if held.covers(Role.VIEWER) else replace(self, gids={**self.gids, gid: Role.VIEWER})


def role_of(principal: Principal, rules: Rules, *, own_uid: int) -> Role:
    """The role of whoever connected; ``own_uid`` is the supervisor's."""
    if principal.uid == OVERFLOW_UID or principal.for_worker:
        return Role.NONE
    if principal.uid in (0, own_uid):
        return Role.ADMIN
    gids = {principal.gid, *principal.groups} - {OVERFLOW_UID}
    held = {rules.uids.get(principal.uid, Role.NONE), *(rules.gids.get(gid, Role.NONE) for gid in gids)}
    return max(held, key=tuple(Role).index)


def admit(principal: Principal, held: Role, needed: Role) -> Role:
    """Let those pass whose role covers the one that is needed.

    Returns:
        The role by which they are answered: that of a viewer at most, for who could not be looked at.

    Raises:
        NotPermitted: it does not, or it is a worker of ours, who may do nothing at all.
        Refused: ``unavailable``: it does, but who asks could not be looked at, and might be a worker.
    """
    if principal.for_worker:
        raise NotPermitted(f"{principal} is a worker of this service or was started by one, and they may not use this")
    if not held.covers(needed):
        has = f"has the role '{held}'" if held is not Role.NONE else "has no role here"
        raise NotPermitted(f"{principal} {has}; this needs '{needed}': {_way_out(principal, needed)}")
    if principal.unseen and not Role.VIEWER.covers(needed):
        message = (
            f"it cannot be seen whether {principal} is a worker of this service: {principal.unseen}; "
            "until it can, it may look and change nothing"
        )
        raise Refused(message, code="unavailable")
    return Role.VIEWER if principal.unseen and held.covers(Role.VIEWER) else held


def _way_out(principal: Principal, needed: Role) -> str:
    if principal.uid == OVERFLOW_UID:
        return "that uid may be anybody's whom this user namespace does not know, so no rule is about it"
    return f"start the supervisor with --{needed} uid:{principal.uid}, or with one of its groups, or ask as root"
