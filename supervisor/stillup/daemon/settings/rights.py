"""Rights as they were configured: roles, the sockets' groups, the workers' user.

Names are looked up once, when the settings are made: at a start, a re-exec or a check, never in the loop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from stillup.core.access import Role, Rules
from stillup.errors import UsageError
from stillup.host import accounts, dropped_rights
from stillup.host.accounts import Account
from stillup.host.runtime_directory import Guest
from stillup.wire.address import TcpAddress, parse_bind
from stillup.wire.role_rules import check_number, parse_user_or_group

_ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
_WHO = "uid:N, gid:N, user:NAME or group:NAME; may be given several times"


class Rights(msgspec.Struct, frozen=True):
    """All of it, with numbers for names."""

    rules: Rules = msgspec.field(default_factory=Rules)
    control_gid: int | None = None
    """The group of ``control.sock``; None for our own."""
    observe_gid: int | None = None
    """The group of ``observe.sock``, whose members are viewers there; None for no such socket."""
    admin_bind: TcpAddress | None = None
    agent_bind: TcpAddress | None = None
    worker: Account | None = None
    """The workers' user; None for our own."""
    orphans_uid: int | None = None
    """Whose the workers of a supervisor before us are, where that is another than theirs was to be."""
    passed: tuple[str, ...] = ()
    """The variables of ours that workers of another user have, too."""

    @property
    def worker_uid(self) -> int:
        """Who may connect to ``handoff.sock``, other than root, and who may be a worker."""
        if self.orphans_uid is not None:
            return self.orphans_uid
        return self.worker.uid if self.worker is not None else os.geteuid()

    @property
    def handoff(self) -> tuple[int, int, int]:
        """Mode, owner and group of ``handoff.sock``.

        A file's owner may change its mode, and so keep every new worker out: it is ours, for the workers' group. Of
        workers that a supervisor before us has left their user may be all that is known.
        """
        if self.worker is None or self.orphans_uid is not None or self.worker.uid == os.geteuid():
            return 0o600, self.worker_uid, os.getegid()
        return 0o660, os.geteuid(), self.worker.gid

    @property
    def guests(self) -> tuple[Guest, ...]:
        """Who has business in the runtime directory, other than root and our own user."""
        groups = tuple(Guest(frozenset({gid})) for gid in (self.control_gid, self.observe_gid) if gid is not None)
        if self.orphans_uid is not None:
            return (*groups, Guest(frozenset(), self.orphans_uid))
        if self.worker is None:
            return groups
        return (*groups, Guest(frozenset({self.worker.gid, *self.worker.groups}), self.worker.uid))

    @property
    def closed_to_all(self) -> bool:
        """Whether roles are given to other users, and no socket is open to any of them."""
        has_rules = bool(self.rules.uids or self.rules.gids)
        return has_rules and self.control_gid is None and self.observe_gid is None


def parameters() -> list[click.Parameter]:
    """What the command line says of it."""
    what = {
        Role.VIEWER: "look at everything but what failed workers wrote and their apps said",
        Role.OPERATOR: "also reload, roll back, promote, scale, abort",
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
            ["--agent-bind"],
            metavar="HOST:PORT",
            help="Answer HAProxy's agent-check there, to whoever can connect: a weight by how many workers serve, 0 "
            "while cordoned or stopping; such as 127.0.0.1:9777.",
        ),
        click.Option(
            ["--worker-user"],
            metavar="USER",
            help="The workers' user, a name or a number: without the supervisor's rights, ports below 1024 and the "
            "control socket are out of their reach. Needs root. [default: the supervisor's own]",
        ),
        click.Option(["--worker-group"], metavar="GROUP", help="Their group. [default: the primary one of that user]"),
        click.Option(
            ["--pass-env"],
            multiple=True,
            metavar="NAME",
            help="A variable of ours that workers of another user are to have, too; may be given several times. They "
            "have PATH, LANG, LC_*, TZ, what names their user, and --env-file. [default: all, without "
            "--worker-user]",
        ),
    ]


def make_rights(given: Mapping[str, Any]) -> Rights:
    """Read it, and look the names up. Blocks.

    Raises:
        UsageError: it means nothing, or a user or group does not exist.
    """
    worker = None
    if given["worker_user"]:
        worker = accounts.find_account(given["worker_user"], given["worker_group"] or "")
        dropped_rights.try_out(worker)
    else:
        for name in ("worker_group", "pass_env"):
            if given[name]:
                raise UsageError(f"--{name.replace('_', '-')} goes with --worker-user")
    admin_bind, agent_bind = _tcp_address(given, "admin_bind", 9464), _tcp_address(given, "agent_bind", 9777)
    if agent_bind is not None and agent_bind == admin_bind and agent_bind.port:
        raise UsageError(f"--agent-bind {agent_bind}: --admin-bind is there")
    return Rights(
        rules=_rules(given),
        control_gid=_group(given, "control_group"),
        observe_gid=_group(given, "observe_group"),
        admin_bind=admin_bind,
        agent_bind=agent_bind,
        worker=worker,
        passed=given["pass_env"],
    )


def _rules(given: Mapping[str, Any]) -> Rules:
    """The numbers with a role; a user or group that is named for several has the highest."""
    uids: dict[int, Role] = {}
    gids: dict[int, Role] = {}
    for role in _ROLES:
        option = f"--{role}"
        for text in given[f"{role}s"]:
            subject = parse_user_or_group(text, option)
            number = subject.number
            if number is None:
                find = accounts.find_group if subject.group else accounts.find_user
                number = check_number(find(subject.name, f"{option} {text}"), text, option)
            (gids if subject.group else uids)[number] = role
    return Rules(uids, gids)


def _group(given: Mapping[str, Any], name: str) -> int | None:
    option = f"--{name.replace('_', '-')}"
    return check_number(accounts.find_group(given[name], option), given[name], option) if given[name] else None


def _tcp_address(given: Mapping[str, Any], name: str, usual: int) -> TcpAddress | None:
    text = given[name]
    if not text:
        return None
    address = parse_bind(text).address
    if not isinstance(address, TcpAddress):
        raise UsageError(f"--{name.replace('_', '-')} {text}: it is HOST:PORT, such as 127.0.0.1:{usual}")
    return address
