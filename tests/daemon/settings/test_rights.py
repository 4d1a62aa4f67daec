"""Who may do what, as it is configured."""

from __future__ import annotations

import os
from typing import Any

import pytest

from stillup.core.access import Role, Rules
from stillup.daemon.settings.rights import Rights, make_rights, parameters
from stillup.errors import UsageError
from stillup.host.accounts import Account
from stillup.host.runtime_directory import Guest
from stillup.wire.address import TcpAddress


def rights(**given: Any) -> Rights:
    """What is made of these; the rest was not given."""
    defaults = {parameter.name: () if parameter.multiple else None for parameter in parameters()}
    return make_rights(defaults | given)


def test_nothing_is_given() -> None:
    """Without a word nobody has a role, no socket is open to others, and workers are our own user's."""
    found = rights()
    assert found == Rights()
    assert found.rules == Rules()
    assert found.worker_uid == os.geteuid()
    assert not found.guests
    assert not found.closed_to_all


def test_roles() -> None:
    """Numbers and names of users and groups; whoever is named for several roles has the highest."""
    found = rights(viewers=("uid:1000", "gid:33"), operators=("uid:1000", "group:root"), admins=("user:root", "gid:33"))
    assert found.rules == Rules({1000: Role.OPERATOR, 0: Role.ADMIN}, {33: Role.ADMIN, 0: Role.OPERATOR})
    assert found.closed_to_all


def test_sockets() -> None:
    """The groups of the sockets and the address of --admin-bind; whoever has business there gets through."""
    assert rights(control_group="root").guests == (Guest(frozenset({0})),)
    found = rights(viewers=("uid:1000",), observe_group="77", admin_bind="[::1]:9464")
    assert (found.control_gid, found.observe_gid, found.admin_bind) == (None, 77, TcpAddress("::1", 9464))
    assert found.guests == (Guest(frozenset({77})),)
    assert not found.closed_to_all
    assert not rights(admin_bind="127.0.0.1:0").guests


def test_who_owns_the_hand_off_socket() -> None:
    """Not the workers' user, who could change its mode; but where nothing else is known of them."""
    own = os.geteuid(), os.getegid()
    assert Rights().handoff == (0o600, *own)
    assert Rights(worker=Account(own[0] + 5, 6, (7,))).handoff == (0o660, own[0], 6)
    assert Rights(orphans_uid=9).handoff == (0o600, 9, own[1])


def test_workers_of_another_user_are_guests() -> None:
    """They get to the directory by their user, or by any of their groups."""
    found = Rights(observe_gid=77, worker=Account(5, 6, (7,)))
    assert found.guests == (Guest(frozenset({77})), Guest(frozenset({6, 7}), 5))
    left = Rights(orphans_uid=9)
    assert left.worker_uid == 9
    assert left.guests == (Guest(frozenset(), 9),)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"viewers": ("alice",)}, "--viewer alice: it is uid:1000"),
        ({"admins": ("user:nobody",)}, "--admin user:nobody: 65534 is what the kernel shows for a user that"),
        ({"operators": ("group:no-such",)}, "--operator group:no-such: no group is named 'no-such'"),
        ({"observe_group": "no-such"}, "--observe-group: no group is named 'no-such'"),
        ({"control_group": "65534"}, "--control-group 65534: 65534 is what the kernel shows for a user that"),
        ({"observe_group": "65534"}, "--observe-group 65534: 65534 is what the kernel shows for a user that"),
        ({"admin_bind": "unix:/x"}, "--admin-bind unix:/x: it is HOST:PORT"),
        ({"admin_bind": "9464"}, "expected HOST:PORT"),
        ({"worker_group": "root"}, "--worker-group goes with --worker-user"),
        ({"pass_env": ("HOME",)}, "--pass-env goes with --worker-user"),
        ({"worker_user": "no-such"}, "--worker-user: no user is named 'no-such'"),
    ],
)
def test_mistakes(given: dict[str, Any], says: str) -> None:
    """Each is one line that names the option and what was given."""
    with pytest.raises(UsageError) as caught:
        rights(**given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
