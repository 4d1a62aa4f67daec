"""Which unit a process is part of."""

from __future__ import annotations

import pytest

from stillup.wire.manager_unit import is_stop_command, managed, stop_command, stopped_unit

UNIT = "0::/system.slice/system-stillup.slice/stillup@shop.service\n"
MINE = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/stillup@shop.service\n"


@pytest.mark.parametrize(
    ("cgroup", "command"),
    [
        (UNIT, "systemctl stop stillup@shop"),
        ("0::/system.slice/stillup@shop.service/control\n", "systemctl stop stillup@shop"),
        (MINE, "systemctl --user stop stillup@shop"),
        ("12:pids:/x\n1:name=systemd:/system.slice/shop.service\n", "systemctl stop shop"),
        ("0::/user.slice/user-1000.slice/user@1000.service/session.slice\n", ""),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
        ("0::/\n", ""),
        ("garbage", ""),
    ],
)
def test_the_unit(cgroup: str, command: str) -> None:
    """The service that is nearest; a login is none."""
    assert stop_command(cgroup) == command


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({"SYSTEMD_EXEC_PID": "7"}, "systemctl stop stillup@shop"),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, "systemctl stop stillup@shop"),
        ({"SYSTEMD_EXEC_PID": "6", "INVOCATION_ID": "of a shell"}, ""),
        ({"SUPERVISOR_ENABLED": "1", "SUPERVISOR_PROCESS_NAME": "shop"}, "supervisorctl stop shop"),
        (
            {"SUPERVISOR_ENABLED": "1", "SUPERVISOR_PROCESS_NAME": "a", "SUPERVISOR_GROUP_NAME": "shop"},
            "supervisorctl stop shop:a",
        ),
        ({}, ""),
    ],
)
def test_who_started_it(environment: dict[str, str], command: str) -> None:
    """By what a manager has told this very process."""
    assert managed(environment, 7, UNIT) == command


@pytest.mark.parametrize(
    ("command", "unit", "known"),
    [
        ("systemctl stop stillup@shop", ("", "stillup@shop.service"), True),
        ("systemctl --user stop a\\x2db", ("--user", "a\\x2db.service"), True),
        ("supervisorctl stop shop:a", None, True),
        ("supervisorctl stop all; reboot", None, False),
        ("systemctl mask --now auditd.service stop x", None, False),
        ("systemctl x", None, False),
        ("systemctl stop a\n", None, False),
        ("systemctl stop -Hevil", None, False),
        ("", None, False),
    ],
)
def test_what_is_said_to_be_a_stop_command(command: str, unit: tuple[str, str] | None, *, known: bool) -> None:
    """A supervisor's word is one only in our own forms; and whatever ``stop_command`` makes is one."""
    assert stopped_unit(command) == unit
    assert is_stop_command(command) is known
    for cgroup in (UNIT, MINE):
        assert is_stop_command(stop_command(cgroup))
