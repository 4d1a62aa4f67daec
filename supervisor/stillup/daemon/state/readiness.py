"""Where the service stands, in the service manager's words (sd_notify(3))."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from stillup.core.hook_settings import HookKind
from stillup.core.model import Fleet
from stillup.core.states import ServiceState
from stillup.host.service_manager import Notifier
from stillup.wire.status_line import status_line


class Readiness:
    """Tells the manager of what was announced.

    1. READY once the first generation serves, and again when a reload has come to its end, whatever that was.
    2. RELOADING from a reload's beginning on, its hook's included.
    3. While it starts or stops, and while a hook runs or a canary is watched, the time that this may take; so no drain
       is cut short, no announcement of a stop, no migration, and no watch.
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
        line = status_line(fleet)
        serves = fleet.state is ServiceState.SERVING
        match kind:
            case "hook.begun" if data["hook"] == HookKind.BEFORE:
                if serves:
                    self._notifier.reloading(line)
                    self._reloading = True
                # Its deadline, SIGTERM and SIGKILL, and the boot that follows.
                self._notifier.extend(data["seconds"] + 2 * policy.grace + _boot(fleet))
                self._notifier.status(line)
            case "rollout.begun" if serves:
                self._notifier.reloading(line)
                self._reloading = True
            case "rollout.begun":
                self._notifier.extend(_boot(fleet))
                self._notifier.status(line)
            case "canary.watching" if fleet.plan is not None:
                # A watch that is held is as long as it may be; and the rest boots after it.
                self._notifier.extend(fleet.plan.strategy.canary_timeout + _boot(fleet))
                self._notifier.status(line)
            case "canary.passed" | "canary.promoted":
                self._notifier.extend(_boot(fleet))
                self._notifier.status(line)
            case "rollout.cut-over":
                self._notifier.ready(line)
                self._reloading = False
            case "service.taken-over" if data["generation"] is not None:
                self._notifier.ready(line)
            case "rollout.aborted" if self._reloading and serves and fleet.pending is None:
                self._notifier.ready(line)
                self._reloading = False
            case "service.stop-delayed":
                self._notifier.stopping(line)
                self._notifier.extend(data["seconds"] + policy.grace)
            case "service.stopping":
                self._notifier.stopping(line)
                # Its drain, SIGTERM and SIGKILL after it, and the app's shutdown. Not before: a stop that we began
                # ourselves has no deadline that could be extended until the manager has heard of it.
                self._notifier.extend(policy.stop_timeout + 2 * policy.grace + policy.shutdown_timeout)
            case _ if line != self._said:
                self._notifier.status(line)
        self._said = line


def _boot(fleet: Fleet) -> float:
    """Seconds that a generation may take from its first worker to its cut-over, or to its end."""
    policy = fleet.policy
    turns = math.ceil(fleet.size / policy.boot_concurrency)
    return turns * policy.boot_timeout + policy.admit_timeout + policy.shutdown_timeout
