"""Who may do what here, as it was configured: roles, the sockets' groups, the workers' user.

Names are looked up once, when the settings are made: at a start, a re-exec or a check, never in the loop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from supervisor.core.access import Role, Rules
from supervisor.errors import UsageError
from supervisor.host import accounts
from supervisor.host.accounts import Account
from supervisor.host.runtime import Guest
from supervisor.wire.address import TcpAddress, parse_bind
from supervisor.wire.subjects import check_number, parse_subject

_ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
_WHO = "uid:N, gid:N, user:NAME or group:NAME; may be given several times"


@dataclass(frozen=True, slots=True)
class Rights:
    """All of it, with numbers for names."""

    rules: Rules = field(default_factory=Rules)
    control_gid: int | None = None
    """The group of ``control.sock``; None for our own."""
    observe_gid: int | None = None
    """The group of ``observe.sock``, whose members are viewers there; None for no such socket."""
    admin_bind: TcpAddress | None = None
    worker: Account | None = None
    """Whom workers run as; None for our own user."""
    become: tuple[str, ...] = ()
    """The words before a worker's command that make it so."""

    @property
    def worker_uid(self) -> int:
        return self.worker.uid if self.worker is not None else os.geteuid()

    @property
    def guests(self) -> tuple[Guest, ...]:
        """Who has business in the runtime directory, other than root and our own user."""
        groups = tuple(Guest(frozenset({gid})) for gid in (self.control_gid, self.observe_gid) if gid is not None)
        if self.worker is None:
            return groups
        return (*groups, Guest(frozenset({self.worker.gid, *self.worker.groups}), self.worker.uid))

    @property
    def closed_to_all(self) -> bool:
        """Whether somebody has a role, and no socket is open to him."""
        has_rules = bool(self.rules.uids or self.rules.gids)
        return has_rules and self.control_gid is None and self.observe_gid is None


def parameters() -> list[click.Parameter]:
    """What the command line says of it."""
    what = {
        Role.VIEWER: "look at everything but what failed workers wrote and their apps said",
        Role.OPERATOR: "also reload, roll back, scale, abort",
        Role.ADMIN: "do everything, as root and the supervisor's own user may",
    }
    return [
        *(
            click.Option([f"--{role}", f"{role}s"], multiple=True, metavar="WHO", help=f"May {what[role]}: {_WHO}.")
            for role in _ROLES
        ),
        click.Option(
            ["--control-group"],
            metavar="GROUP",
            help="The group that may connect to control.sock; what its members may do is said by the roles. "
            "[default: the supervisor's own]",
        ),
        click.Option(
            ["--observe-group"],
            metavar="GROUP",
            help="Open observe.sock to that group: for monitoring, its members may look there, and nobody may do more.",
        ),
        click.Option(
            ["--admin-bind"],
            metavar="HOST:PORT",
            help="Serve /metrics, /livez and /readyz there to whoever can connect, and nothing else; "
            "such as 127.0.0.1:9464.",
        ),
        click.Option(
            ["--worker-user"],
            metavar="USER",
            help="The workers' user, a name or a number: without the supervisor's rights, ports below 1024 and the "
            "control socket are out of their reach. Needs root and setpriv. [default: the supervisor's own]",
        ),
        click.Option(["--worker-group"], metavar="GROUP", help="Their group. [default: the primary one of that user]"),
    ]


def make_rights(given: Mapping[str, Any]) -> Rights:
    """Read it, and look the names up. Blocks.

    Raises:
        UsageError: it means nothing, or a user or group does not exist.
    """
    worker = None
    if given["worker_user"]:
        worker = accounts.find_account(given["worker_user"], given["worker_group"] or "")
    elif given["worker_group"]:
        raise UsageError("--worker-group goes with --worker-user")
    return Rights(
        rules=_rules(given),
        control_gid=_group(given, "control_group"),
        observe_gid=_group(given, "observe_group"),
        admin_bind=_admin_bind(given["admin_bind"]) if given["admin_bind"] else None,
        worker=worker,
        become=accounts.become(worker) if worker is not None else (),
    )


def _rules(given: Mapping[str, Any]) -> Rules:
    """Whoever is named for several roles has the highest."""
    uids: dict[int, Role] = {}
    gids: dict[int, Role] = {}
    for role in _ROLES:
        option = f"--{role}"
        for text in given[f"{role}s"]:
            subject = parse_subject(text, option)
            number = subject.number
            if number is None:
                find = accounts.find_group if subject.group else accounts.find_user
                number = check_number(find(subject.name, f"{option} {text}"), text, option)
            (gids if subject.group else uids)[number] = role
    return Rules(uids, gids)


def _group(given: Mapping[str, Any], name: str) -> int | None:
    option = f"--{name.replace('_', '-')}"
    return check_number(accounts.find_group(given[name], option), given[name], option) if given[name] else None


def _admin_bind(text: str) -> TcpAddress:
    address = parse_bind(text).address
    if not isinstance(address, TcpAddress):
        raise UsageError(f"--admin-bind {text}: it is HOST:PORT, such as 127.0.0.1:9464")
    return address
