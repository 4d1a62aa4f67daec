"""The facts that ``stillup doctor`` decides from. None stands for what could not be found out."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from stillup.wire.api_shapes import RolloutView


class ConnectResult(StrEnum):
    """What a connect() to a socket file comes to."""

    YES = "answers"
    REFUSED = "refused"
    """ECONNREFUSED: nothing listens, the process that made the file has ended."""
    DENIED = "denied"
    UNKNOWN = "unknown"


class FileFacts(msgspec.Struct, frozen=True):
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
    answer: ConnectResult | None = None
    """Of a socket."""


class DirectoryFacts(msgspec.Struct, frozen=True):
    """The runtime directory."""

    path: str
    directory: FileFacts | None
    """None: it is not there."""
    parent: FileFacts | None = None
    """The directory around it, if it is there."""
    open: bool = True
    """Whether we may look into it."""
    can_be_made: bool = True
    """Of one that is not there: whether we may make it."""
    hazards: tuple[str, ...] = ()
    """Levels above it where somebody else could put another in its place."""
    files: tuple[FileFacts, ...] = ()
    lock_holder: int | None = None
    """The pid that holds the lock, by the kernel's list of locks."""
    orphans: tuple[str, ...] = ()
    """Workers that live on without a supervisor."""
    lingers: bool | None = None
    """Whether systemd keeps /run/user/UID when that user has logged out."""

    def file(self, name: str) -> FileFacts | None:
        return next((file for file in self.files if file.name == name), None)


class SupervisorFacts(msgspec.Struct, frozen=True):
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
    births: tuple[str, ...] = ()
    """How its workers' processes came to be."""
    unmoved: tuple[str, ...] = ()
    """Why its connections stay where they are."""
    worker_pids: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()
    """Of its listeners."""
    unreachable: tuple[str, ...] = ()
    """The listeners to which nobody can connect any more, and why."""
    rejected: RolloutView | None = None
    """Its last rollout, if that was aborted."""
    role: str = ""
    """Ours."""
    unseen: str = ""
    """Why we may look and no more, whatever was to be our role; empty if that is not so."""
    backlog: int | None = None
    """That was asked for its listeners."""
    files: tuple[int, int] | None = None
    """Its soft and hard limit of descriptors."""
    managed: bool | None = None
    """Whether systemd started it."""
    notifies: bool | None = None
    """Whether it was given a NOTIFY_SOCKET."""
    stop_command: str = ""
    """How its service manager is told to stop it; empty without one."""
    stop_delay: float = 0.0
    """Seconds that its stops are announced before they begin."""
    stop_budget: float = 0.0
    """Seconds that a stop may take; 0 where that is not known."""
    stop_allowed: float | None = None
    """Seconds that its unit gives it for that."""
    sockets: tuple[str, ...] = ()
    """The ``.socket`` units that start it."""


class KernelFacts(msgspec.Struct, frozen=True):
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


class SecurityFacts(msgspec.Struct, frozen=True):
    """Who else has a say in what a process may do."""

    selinux: str = ""
    """``enforcing`` or ``permissive``; empty without it."""
    apparmor: str = ""
    """Our profile; empty without one."""
    denials: tuple[str, ...] = ()
    """Lines of the logs about us, the last ones."""
    logs_read: bool = False


class EnvironmentFacts(msgspec.Struct, frozen=True):
    """What is installed, and what starts us."""

    python: tuple[int, int]
    uvicorn: str
    systemd: int | None = None
    """Its version; None where it does not run."""


class ProtectionFacts(msgspec.Struct, frozen=True):
    """What keeps the app, other users and directories of others apart from the supervisor (``docs/security.md``)."""

    workers: dict[int, str] = {}
    """The users that workers are, by uid; empty where none is to be seen."""
    neighbours: tuple[str, ...] = ()
    """Other processes of those users, which are none of this service's: their names and pids."""
    open_binds: tuple[str, ...] = ()
    """Unix sockets that anybody can connect to."""
    says_who_forwards: bool = False
    """Whether --forwarded-allow-ips was given by a flag or a variable; in a file it is not looked for."""
    hazards: tuple[str, ...] = ()
    """Why somebody else decides about a level of the way to the runtime directory."""


class Facts(msgspec.Struct, frozen=True):
    """All of it."""

    uid: int
    place: DirectoryFacts
    service: SupervisorFacts
    kernel: KernelFacts
    security: SecurityFacts
    environment: EnvironmentFacts
    protections: ProtectionFacts = ProtectionFacts()
