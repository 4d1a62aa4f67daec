"""What was seen. None stands for what could not be found out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What a connect() to a socket file comes to."""

    YES = "answers"
    REFUSED = "refused"
    """ECONNREFUSED: nobody listens, whoever made the file has ended."""
    DENIED = "denied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class File:
    """A file or directory."""

    name: str
    kind: str
    """``socket``, ``directory`` or ``file``."""
    mode: int
    """The permission bits."""
    uid: int
    gid: int
    user: str = ""
    group: str = ""
    answer: Answer | None = None
    """Of a socket."""


@dataclass(frozen=True, slots=True)
class Place:
    """The runtime directory."""

    path: str
    directory: File | None
    """None: it is not there."""
    parent: File | None = None
    """The directory around it, if it is there."""
    open: bool = True
    """Whether we may look into it."""
    can_be_made: bool = True
    """Of one that is not there: whether we may make it."""
    files: tuple[File, ...] = ()
    lock_holder: int | None = None
    """The pid that holds the lock, by the kernel's list of locks."""
    orphans: tuple[str, ...] = ()
    """Workers that live on without a supervisor."""
    lingers: bool | None = None
    """Whether systemd keeps /run/user/UID when that user has logged out."""

    def file(self, name: str) -> File | None:
        return next((file for file in self.files if file.name == name), None)


@dataclass(frozen=True, slots=True)
class Service:
    """The supervisor there, by its own words."""

    runs: bool
    trouble: str = ""
    """Why it did not answer, if it runs; and why nothing is known of it, if it does not."""
    denied: bool = False
    pid: int | None = None
    uid: int | None = None
    version: str = ""
    state: str = ""
    workers: int = 0
    role: str = ""
    """Ours."""
    backlog: int | None = None
    """That was asked for its listeners."""
    files: tuple[int, int] | None = None
    """Its soft and hard limit of descriptors."""
    managed: bool | None = None
    """Whether systemd started it."""
    notifies: bool | None = None
    """Whether it was given a NOTIFY_SOCKET."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel, and what it lets us do."""

    release: str
    missing: tuple[str, ...] = ()
    """Of what is needed, what it lacks or forbids."""
    peer_pidfd: bool = True
    own_users: bool = True
    """Whether every uid of the host is seen as what it is: no user namespace hides some."""
    somaxconn: int | None = None
    files: tuple[int, int] | None = None
    """Our soft and hard limit of descriptors; -1 for none."""
    clock: str | None = None


@dataclass(frozen=True, slots=True)
class Security:
    """Who else has a say in what a process may do."""

    selinux: str = ""
    """``enforcing`` or ``permissive``; empty without it."""
    apparmor: str = ""
    """Our profile; empty without one."""
    denials: tuple[str, ...] = ()
    """Lines of the logs about us, the last ones."""
    logs_read: bool = False


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed, and what starts us."""

    python: tuple[int, int]
    uvicorn: str
    supervisord: str = ""
    """Its version, if it is in the same environment."""
    systemd: int | None = None
    """Its version; None where it does not run."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    uid: int
    place: Place
    service: Service
    kernel: Kernel
    security: Security
    environment: Environment
