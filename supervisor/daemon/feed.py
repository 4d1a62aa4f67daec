"""What happened, told to the log, to the service manager and to the readers of events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from supervisor.daemon.history import History
from supervisor.host.systemd import Notifier
from supervisor.wire.kinds import NOBODYS_FAULT

logger = logging.getLogger("stillup")

_LEVELS: Final = logging.getLevelNamesMapping()


class Feed:
    """Every announcement, in order. Nothing here waits."""

    def __init__(self, notifier: Notifier, history: History) -> None:
        self._notifier = notifier
        self._history = history
        self._has_served = False

    def announce(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell everybody.

        Raises:
            KeyError, ValueError: nobody was told; ``wire.events`` has no such kind, or it has other data.
        """
        event = self._history.append(kind, data)
        logger.log(_LEVELS[event.loudness()], "%s", event.text)
        self._notify(kind, event.text, data)

    def _notify(self, kind: str, text: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "rollout.cut-over":
                # The first tells the manager that the service has started; each later one only what it runs.
                (self._notifier.status if self._has_served else self._notifier.ready)(text)
                self._has_served = True
            case "service.taken-over" if data["generation"] is not None:
                self._notifier.ready(f"gen {data['generation']} serves")
                self._has_served = True
            case "rollout.aborted" if self._has_served and data["reason"] not in NOBODYS_FAULT:
                self._notifier.status(f"gen {data['generation']} rejected ({data['reason']}); the one before serves")
            case "service.stopping":
                self._notifier.stopping(text)
            case "rollout.begun":
                self._notifier.status(text)
            case _:
                return
