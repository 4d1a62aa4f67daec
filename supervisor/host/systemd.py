"""Word to the service manager (sd_notify(3)). Without one, nothing happens."""

from __future__ import annotations

import os

import sdnotify


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
        self._say(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._say(f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._say(f"STOPPING=1\nSTATUS={status}")

    def _say(self, words: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(words)
