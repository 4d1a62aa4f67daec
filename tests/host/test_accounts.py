"""Users and groups by their names, and what makes a command another user's."""

from __future__ import annotations

import grp
import pwd

import pytest

from stillup.errors import UsageError
from stillup.host.accounts import Account, find_account, find_group, find_user, is_own_group


def test_names() -> None:
    """Users and groups are found by name, a group by its number as well, whether anything has that or not."""
    assert find_user("root", "--viewer") == 0
    assert find_group("root", "--control-group") == 0
    assert find_group("123456", "--control-group") == 123_456


@pytest.mark.parametrize("name", ["no-such", "", "a\0b", "\udcff"])
def test_nobody(name: str) -> None:
    """A name that nobody has, or can have, is a usage error that names the option."""
    with pytest.raises(UsageError, match=r"--viewer: no user is named"):
        find_user(name, "--viewer")
    with pytest.raises(UsageError, match=r"--control-group: no group is named"):
        find_group(name, "--control-group")
    with pytest.raises(UsageError, match=r"--worker-user: no user is named"):
        find_account(name, "")


def test_an_account() -> None:
    """A user's primary group, the other groups, and the variables that name the user."""
    entry = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, 65534))
    expected = {group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem} - {entry.pw_gid}
    account = Account(
        entry.pw_uid,
        entry.pw_gid,
        tuple(sorted(expected)),
        {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell},
    )
    assert find_account(entry.pw_name, "") == account
    assert find_account(str(entry.pw_uid), "") == account
    other = find_account(entry.pw_name, "12345")
    assert (other.uid, other.gid, set(other.groups)) == (entry.pw_uid, 12345, expected)


def test_a_group_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its user's name and nobody else in it, neither by /etc/group nor by another's entry; root has none."""
    alice = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "/", "/bin/sh"))
    bob = pwd.struct_passwd(("bob", "x", 1001, 1000, "", "/", "/bin/sh"))
    users = [alice]

    def in_group(name: str, gid: int, *members: str) -> bool:
        monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group((name, "x", gid, list(members))))
        return is_own_group(gid)

    monkeypatch.setattr(pwd, "getpwuid", lambda _: alice)
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    assert in_group("alice", 1000)
    assert in_group("alice", 1000, "alice")
    assert not in_group("alice", 1000, "alice", "bob")
    assert not in_group("users", 1000)
    assert not in_group("alice", 0)
    users.append(bob)
    assert not in_group("alice", 1000)
    monkeypatch.undo()
    assert not is_own_group(4_000_000_000)


def test_a_number_without_a_name() -> None:
    """Somebody of whom only the number is known is in the group that is given, and in no other."""
    assert find_account("54321", "12345") == Account(54321, 12345)
    with pytest.raises(UsageError, match=r"--worker-user 54321: no user has that number; say --worker-group as well"):
        find_account("54321", "")
