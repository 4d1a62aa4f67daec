"""The environment of a release: what its workers are started with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stillup.host.accounts import Account

OURS: Final = frozenset(
    {
        *("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"),  # sd_listen_fds(3); PIDFDID from 258 on
        *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    }
)
"""Word between the service manager and the supervisor that no worker may repeat."""
OF_MANAGER: Final = frozenset({"INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LANGUAGE", "PATH", "TZ"})
"""What a service manager gives to a service of any user (systemd.exec(5)), and containers do; ``LC_*``, too."""
DEFAULTS: Final = {"HOME": "/", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""For another user, where nothing else says it."""


def worker_environment(ours: Mapping[str, str], account: Account | None, passed: Iterable[str]) -> dict[str, str]:
    """What there is before the environment file, over which it wins.

    Ours, if the workers are our own user's. Another user's have what a service manager would give that user: ours may
    hold keys and sockets of root's.

    Args:
        ours: the supervisor's.
        account: the workers' user, if it is another.
        passed: the variables that are handed on to that one (``--pass-env``).
    """
    if account is None:
        return {name: value for name, value in ours.items() if name not in OURS}
    named = (OF_MANAGER | frozenset(passed)) - OURS
    handed_on = {name: value for name, value in ours.items() if name in named or name.startswith("LC_")}
    return {**handed_on, **account.environment}


def with_file(environment: Mapping[str, str], file: Mapping[str, str], account: Account | None) -> dict[str, str]:
    """The same with an environment file's variables; as uvicorn has it, what is in the environment already wins."""
    theirs = {name: value for name, value in file.items() if name not in OURS}
    return {**(DEFAULTS if account is not None else {}), **theirs, **environment}
