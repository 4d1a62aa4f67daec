"""Users and groups of this machine, looked up once at the start: an answer may take its time (nsswitch.conf(5))."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping

import msgspec

from stillup.errors import UsageError
from stillup.wire.role_rules import parse_number


class Account(msgspec.Struct, frozen=True):
    """A user to run processes as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary groups."""
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    """HOME, USER, LOGNAME and SHELL, where it has a name."""


def find_user(name: str, option: str) -> int:
    """The uid of that name.

    Raises:
        UsageError: nobody has it.
    """
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError) as error:
        raise UsageError(f"{option}: no user is named '{name}'; see 'getent passwd', or give the number") from error


def find_group(name: str, option: str) -> int:
    """The gid of that name; a number is one, too.

    Raises:
        UsageError: no group has it.
    """
    number = parse_number(name)
    if number is not None:
        return number
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError) as error:
        raise UsageError(f"{option}: no group is named '{name}'; see 'getent group', or give the number") from error


def is_own_group(gid: int) -> bool:
    """Whether that group is our own user's, has that user's name, and nobody else is in it, as far as can be seen."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    named = group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    # Root's is where distributions put others, and containers whoever they run as.
    return gid != 0 and named and all(other.pw_uid == user.pw_uid for other in pwd.getpwall() if other.pw_gid == gid)


def find_account(user: str, group: str) -> Account:
    """The account of ``--worker-user`` and ``--worker-group``; a user of whom only the number is known needs a group.

    Raises:
        UsageError: there is no such account.
    """
    number = parse_number(user)
    gid = find_group(group, "--worker-group") if group else None
    try:
        entry = pwd.getpwnam(user) if number is None else pwd.getpwuid(number)
    except (KeyError, ValueError):
        if number is None:
            find_user(user, "--worker-user")
        if number is None or gid is None:
            raise UsageError(f"--worker-user {user}: no user has that number; say --worker-group as well") from None
        return Account(number, gid)
    primary = entry.pw_gid if gid is None else gid
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, primary)) - {primary}))
    names = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    return Account(entry.pw_uid, primary, groups, names)
