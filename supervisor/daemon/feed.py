"""What happened, told to the log and to the service manager."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from supervisor.core.recovery import LOST
from supervisor.core.rollout import CALLED_OFF
from supervisor.host.systemd import Notifier

logger = logging.getLogger("stillup")

_LINES: Mapping[str, tuple[int, str]] = {
    "service.taken-over": (
        logging.WARNING,
        "taken over: {workers} workers live on, {died} have died meanwhile",
    ),
    "supervisor.reexec": (logging.INFO, "replacing our own program; the workers serve on"),
    "rollout.begun": (logging.INFO, "gen {generation} boots from {release} ({why})"),
    "rollout.waiting": (logging.INFO, "reload {rollout} waits until an older generation has left"),
    "rollout.cut-over": (logging.INFO, "gen {generation} serves"),
    "rollout.done": (logging.DEBUG, "reload {rollout} is done"),
    "rollout.aborted": (logging.ERROR, "gen {generation} rejected ({reason}): {why}"),
    "rollout.rolled-back": (
        logging.ERROR,
        "gen {generation} crashes ({deaths} deaths within {seconds:.0f} s): back to {release}",
    ),
    "rollback.refused": (
        logging.ERROR,
        "gen {generation} crashes, and there is nothing to go back to: {release} was changed in place ({reason})",
    ),
    "generation.gone": (logging.INFO, "gen {generation} has left: {moved} connections moved on, {closed} closed"),
    "release.changed": (
        logging.WARNING,
        "{release} was changed in place: worker {worker} may run something else than what it stood for",
    ),
    "worker.serving": (logging.INFO, "worker {worker} (pid {pid}) serves"),
    "worker.died": (logging.ERROR, "worker {why}; its slot is filled again"),
    "worker.waits": (
        logging.WARNING,
        "worker {worker} died young {deaths} times in a row; next start in {seconds:.1f} s",
    ),
    "worker.worn": (logging.INFO, "worker {worker} is worn and will be replaced: {why}"),
    "worker.wears-fast": (
        logging.WARNING,
        "worker {worker} wore out young {times} times in a row ({why}); it serves on, next start in {seconds:.1f} s",
    ),
    "worker.hung": (
        logging.ERROR,
        "worker {worker} (pid {pid}) hangs: no word for {seconds:.0f} s; replaced, then killed, with {connections}",
    ),
    "worker.recovered": (
        logging.WARNING,
        "worker {worker} (pid {pid}) is back after {seconds:.0f} s without a word; it is replaced all the same",
    ),
    "connections.lost": (
        logging.ERROR,
        "worker {worker} lost {connections} connections on their way from another worker: out of descriptors?",
    ),
    "worker.lost": (logging.ERROR, "worker {why} while it drained"),
    "worker.killed": (logging.WARNING, "worker {worker} does not leave by itself: killed, with {connections}"),
    "worker.overdue": (logging.WARNING, "worker {worker} did not end its drain in time: {connections}"),
    "service.scaled": (logging.INFO, "{workers} workers wanted"),
    "scaling.done": (logging.INFO, "{workers} of {workers} workers serve"),
    "scaling.aborted": (logging.INFO, "scaling to {workers} workers is not waited for any longer: {reason}"),
    "service.stopping": (logging.INFO, "stopping ({why})"),
    "service.hurried": (logging.WARNING, "asked again to stop ({why}): not waiting any longer"),
    "service.stopped": (logging.INFO, "stopped"),
}
"""How each announcement of the core reads."""
_NOBODYS_FAULT = frozenset({"superseded", "stopping", CALLED_OFF, LOST})
"""Why a rollout may be aborted without anything wrong with its release."""


class Feed:
    """Every announcement, in order."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._has_served = False

    def announce(self, kind: str, data: Mapping[str, Any]) -> None:
        level, line = _LINES[kind]
        if kind == "rollout.aborted" and data["reason"] in _NOBODYS_FAULT:
            level, line = logging.INFO, "reload {rollout} is off: {reason}"
        text = line.format(**data)
        logger.log(level, "%s", text)
        self._notify(kind, text, data)

    def _notify(self, kind: str, text: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "rollout.cut-over":
                # The first tells the manager that the service has started; each later one only what it runs.
                (self._notifier.status if self._has_served else self._notifier.ready)(text)
                self._has_served = True
            case "service.taken-over" if data["generation"] is not None:
                self._notifier.ready(f"gen {data['generation']} serves")
                self._has_served = True
            case "rollout.aborted" if self._has_served and data["reason"] not in _NOBODYS_FAULT:
                self._notifier.status(f"gen {data['generation']} rejected ({data['reason']}); the one before serves")
            case "service.stopping":
                self._notifier.stopping(text)
            case "rollout.begun":
                self._notifier.status(text)
            case _:
                return
