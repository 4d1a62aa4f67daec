"""What happened, told to the log, to the service manager and to the readers of events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from supervisor.daemon.history import History
from supervisor.daemon.readiness import Readiness
from supervisor.wire.events import log_line

logger = logging.getLogger("stillup")

_LEVELS: Final = logging.getLevelNamesMapping()
ABOUT: Final = ("generation", "worker", "rollout", "pid")
"""What of an event has a field of its own in the journal and in JSON."""


class Feed:
    """Every announcement, in order. Nothing here waits."""

    def __init__(self, readiness: Readiness, history: History) -> None:
        self._readiness = readiness
        self._history = history

    def announce(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell everybody.

        Raises:
            KeyError, ValueError: nobody was told; ``wire.events`` has no such kind, or it has other data.
        """
        event = self._history.append(kind, data)
        about = {"event": kind, **{name: data[name] for name in ABOUT if data.get(name) is not None}}
        logger.log(_LEVELS[event.loudness()], "%s", log_line(event, data), extra={"about": about})
        self._readiness.hear(kind, data)
