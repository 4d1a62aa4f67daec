"""Where the service stands, in the service manager's words (sd_notify(3))."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from supervisor.core.model import Fleet, ServiceState
from supervisor.host.systemd import Notifier
from supervisor.wire.headline import headline


class Readiness:
    """Tells the manager of what was announced.

    1. READY once the first generation serves, and again when a reload has come to its end, whatever that was.
    2. RELOADING from a reload's beginning on.
    3. While it starts or stops, the time that this may take; so a drain that goes on is not cut short.
    4. STATUS whenever it reads differently.
    """

    def __init__(self, notifier: Notifier, fleet: Callable[[], Fleet]) -> None:
        self._notifier = notifier
        self._fleet = fleet
        self._said = ""
        self._reloading = False

    def hear(self, kind: str, data: Mapping[str, Any]) -> None:
        """Pass an announcement on, as far as the manager wants to know of it."""
        fleet = self._fleet()
        policy = fleet.policy
        line = headline(fleet)
        serves = fleet.state is ServiceState.SERVING
        match kind:
            case "rollout.begun" if serves:
                self._notifier.reloading(line)
                self._reloading = True
            case "rollout.begun":
                self._notifier.extend(policy.boot_timeout + policy.admit_timeout + policy.shutdown_timeout)
                self._notifier.status(line)
            case "rollout.cut-over":
                self._notifier.ready(line)
                self._reloading = False
            case "service.taken-over" if data["generation"] is not None:
                self._notifier.ready(line)
            case "rollout.aborted" if self._reloading and serves and fleet.pending is None:
                self._notifier.ready(line)
                self._reloading = False
            case "service.stopping":
                self._notifier.stopping(line)
                # Its drain, SIGTERM and SIGKILL after it, and the app's shutdown. Not before: a stop that we began
                # ourselves has no deadline that could be extended until the manager has heard of it.
                self._notifier.extend(policy.drain_timeout + 2 * policy.grace + policy.shutdown_timeout)
            case _ if line != self._said:
                self._notifier.status(line)
        self._said = line
