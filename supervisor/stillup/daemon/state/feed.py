"""What happened, told to the log, to the service manager and to the readers of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from stillup.daemon.state.history import History
from stillup.daemon.state.readiness import Readiness
from stillup.wire.event_feed import log_line

logger = logging.getLogger("stillup")

_LEVELS: Final = logging.getLevelNamesMapping()
ABOUT: Final = ("generation", "worker", "rollout", "pid")
"""What of an event has a field of its own in the journal and in JSON."""


class Feed:
    """Every announcement, in order. Nothing here waits."""

    def __init__(
        self, readiness: Readiness, history: History, *others: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        """Tell these; ``others`` are called with each announcement's kind and data, last of all."""
        self._readiness = readiness
        self._history = history
        self._others = others

    def announce(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell everybody.

        Raises:
            KeyError, ValueError: nobody was told; ``wire.event_types`` has no such kind, or it has other data.
        """
        event = self._history.append(kind, data)
        about = {"event": kind, **{name: data[name] for name in ABOUT if data.get(name) is not None}}
        logger.log(_LEVELS[event.loudness()], "%s", log_line(event, data), extra={"about": about})
        self._readiness.hear(kind, data)
        for hear in self._others:
            hear(kind, data)
