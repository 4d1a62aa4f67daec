"""Who may use the control socket."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.errors import NotPermitted

OVERFLOW_UID = 65534
"""What the kernel shows for a user that this user namespace does not map (user_namespaces(7)): it may be anybody."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who connected, by the kernel's word, as of connect(). A pid of 0 is a process of another pid namespace."""

    uid: int
    gid: int
    pid: int

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


def admit(principal: Principal, *, own_uid: int) -> None:
    """Let root and the supervisor's own user pass.

    Raises:
        NotPermitted: it is anybody else.
    """
    if principal.uid == OVERFLOW_UID or principal.uid not in (0, own_uid):
        message = f"{principal} may not use this socket: only root and uid {own_uid} may"
        raise NotPermitted(message)
