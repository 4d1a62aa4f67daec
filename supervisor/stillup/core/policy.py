"""What an operator chose, the limits of what may be chosen, and the timers by which all of it holds."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from stillup.core.drain import ClassTimeouts
from stillup.core.hook_settings import Hooks
from stillup.core.strategy import Strategy, StrategyKind

MOST_SERVING: Final = 1
"""Generations that may serve at the same time."""
MOST_IN_STANDBY: Final = 1
"""Generations that may be in standby at the same time."""
MOST_WORKERS: Final = 1000
"""Of a generation. More are a slip of the finger: a number of any length would start as many processes as the machine
can bear."""
SIZES: Final = range(1, MOST_WORKERS + 1)
"""The numbers of workers that a generation may have."""
STOP_MARGIN: Final = 5.0
"""Seconds from a stop's deadline to that of the service manager."""


class Policy(msgspec.Struct, frozen=True):
    """The deadlines and limits that an operator chose."""

    boot_timeout: float = 60.0
    """Seconds from spawn to READY."""
    boot_concurrency: int = MOST_WORKERS
    """Workers that may boot at once (``core.boot_queue``)."""
    admit_timeout: float = 10.0
    """Seconds from ACCEPT to SERVING."""
    drain_timeout: float = 30.0
    """Seconds that requests have in a worker that others replace."""
    drain_timeout_stream: float = 600.0
    """The same for streaming answers."""
    drain_timeout_websocket: float = 0.0
    """The same for WebSockets, from when the app was told to their close."""
    stop_timeout: float = 30.0
    """Seconds of the end of the service, for all of them and the app's shutdown after them."""
    stop_delay: float = 0.0
    """Seconds from a stop's announcement to its beginning."""
    grace: float = 5.0
    """Seconds past its own deadline before a worker is sent SIGTERM, and from SIGTERM to SIGKILL."""
    shutdown_timeout: float = 10.0
    """Seconds from SIGTERM to SIGKILL for a worker that never served: its app may have started, and shuts down."""
    max_draining: int = 2
    """Generations that may drain at the same time, and that may be ended at the same time without having served."""
    hang_timeout: float | None = 60.0
    """Seconds without a word after which a worker that serves is hung; None: none ever is."""
    leader_timeout: float = 10.0
    """Seconds that a leader which is told to leave has to let go, before it is killed so that another can lead."""
    strategy: Strategy = msgspec.field(default_factory=Strategy)
    """How new generations come."""
    allow_strategy: tuple[StrategyKind, ...] = ()
    """What else one reload may choose; empty: any."""
    probation: float = 30.0
    """Seconds after its cut-over in which a release that crashes is rolled back; 0: none is."""
    parks: bool = False
    """Whether the adoption queue outlives the supervisor: what is idle at a stop is put there for the next."""
    hooks: Hooks = Hooks()
    """What is run around each rollout."""
    hook_timeout: float = 600.0
    """Seconds that each of these may take."""
    keep_trying: bool = False
    """Whether a first generation that cannot boot leaves the supervisor waiting for the next reload (hot reload)."""

    @property
    def stop_budget(self) -> float:
        """Seconds that a service manager is to give a stop."""
        return self.stop_delay + self.stop_timeout + STOP_MARGIN

    @property
    def drain_times(self) -> ClassTimeouts:
        """How long each class may take in a worker that others replace."""
        return ClassTimeouts(self.drain_timeout, self.drain_timeout_stream, self.drain_timeout_websocket)


class ConfiguredBefore(msgspec.Struct, frozen=True):
    """What was configured of the service as a whole."""

    policy: Policy
    size: int
    configured: int


class TimerKind(StrEnum):
    """What a timer is for."""

    BOOT = "boot"
    """A worker should be READY by now."""
    ADMIT = "admit"
    """A worker should be SERVING by now."""
    DRAIN = "drain"
    """A worker should have ended its drain by itself by now."""
    TERM = "term"
    """A worker should have left on SIGTERM by now."""
    RESPAWN = "respawn"
    """A vacant slot may be filled again."""
    STOP = "stop"
    """A stop that was announced may begin."""
    HOOK = "hook"
    """A hook should have ended by now."""
    HOOK_TERM = "hook-term"
    """A hook should have ended on SIGTERM by now."""
    STANDBY = "standby"
    """A standby is over."""
    LEADER = "leader"
    """A leader should have let go by now, or the next one may be told."""
    GATE = "gate"
    """The canary of a rollout is to be looked at."""


class Timer(msgspec.Struct, frozen=True):
    """A deadline. ``of`` is a worker's serial, or a hook's; for RESPAWN a generation, with its slot; 0 for STOP.

    For STANDBY a generation, too; for LEADER who is to let go, or 0; for GATE a rollout.
    """

    kind: TimerKind
    of: int
    slot: int = 0
