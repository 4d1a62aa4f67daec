"""The service manager: what it started us with (sd_listen_fds(3)), and word to it (sd_notify(3)).

Without one, nothing is there and nothing happens.
"""

from __future__ import annotations

import array
import os
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import sdnotify

from stillup.wire import manager_unit
from stillup.wire.plain_text import escaped

PATIENCE: Final = 2.0
"""Seconds that a manager which does not read is waited for."""
FIRST: Final = 3
"""The number of the first descriptor that is passed (SD_LISTEN_FDS_START)."""


def watchdog() -> float | None:
    """Seconds within which the manager wants word of us (sd_watchdog_enabled(3)); None if it wants none."""
    text = os.environ.get("WATCHDOG_USEC", "")
    if not text.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(text) / 1_000_000


def passed() -> list[tuple[str, int]]:
    """The descriptors that the manager started this very process with, each with its name, in their order.

    A socket whose unit gives it no name has that of the unit. The descriptors are the caller's from here on.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdecimal():
        return []
    count = int(os.environ["LISTEN_FDS"])
    given = os.environ.get("LISTEN_FDNAMES")
    names = given.split(":") if given else []
    names += ["unknown"] * (count - len(names))
    return list(zip(names, range(FIRST, FIRST + count), strict=False))


def stop_command(environment: Mapping[str, str]) -> str:
    """How the manager that started this process is told to stop it; empty if none did."""
    try:
        cgroup = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cgroup = ""
    return manager_unit.managed(environment, os.getpid(), cgroup)


class Notifier:
    """Takes NOTIFY_SOCKET out of the environment, so that no worker ever speaks for the service."""

    def __init__(self) -> None:
        self._notifier: sdnotify.SystemdNotifier | None = None
        if os.environ.get("NOTIFY_SOCKET"):
            self._notifier = sdnotify.SystemdNotifier()
            if self._notifier.socket is not None:
                self._notifier.socket.setblocking(False)  # a manager that does not read must not stop us
            del os.environ["NOTIFY_SOCKET"]

    def ready(self, status: str) -> None:
        """It serves: after the start, and when a reload has come to its end, whatever that was."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """A reload has begun; ``ready`` follows. Since systemd 253 the time is to be said."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def extend(self, seconds: float) -> None:
        """What goes on, a start or a stop, may take that long from now on."""
        self._say(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._say("WATCHDOG=1")

    def status(self, status: str) -> None:
        self._say(f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._say("STOPPING=1", f"STATUS={status}")

    def store(self, name: str, fd: int) -> None:
        """Have a copy of a socket kept under a name (sd_pid_notify_with_fds(3)) and passed to our successor.

        FDPOLL=0, since the end of a socketpair would be dropped as soon as its peer has closed (systemd 246). Blocks
        while the manager does not read, PATIENCE seconds at most.

        Raises:
            OSError: the manager did not take it.
        """
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)

    def forget(self, name: str) -> None:
        """Have what is kept under a name closed; else as ``store``."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, words: str, *fds: int) -> None:
        sock = self._notifier.socket if self._notifier is not None else None
        if sock is None:
            return
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        until = time.monotonic() + PATIENCE
        while True:
            try:
                sock.sendmsg([words.encode()], passed)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                select.select((), (sock,), (), PATIENCE)
            else:
                return

    def _say(self, *words: str) -> None:
        """A line each: what somebody else has chosen in one begins no other."""
        if self._notifier is not None:
            self._notifier.notify("\n".join(map(escaped, words)))
