"""The states of the service and of everything in it. How one follows another is in ``core.lifecycle``."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ServiceState(StrEnum):
    """What the service as a whole does."""

    STARTING = "starting"
    """No generation has served yet."""
    SERVING = "serving"
    STOP_DELAY = "stop-delay"
    """A stop was asked for, and is announced; everything is served on until its delay is over."""
    STOPPING = "stopping"
    STOPPED = "stopped"


class GenerationState(StrEnum):
    """Where a generation stands."""

    BOOTING = "booting"
    """Its workers import and start the app; none accepts."""
    ADMITTING = "admitting"
    """All were READY; all were told to accept, not all have said that they do."""
    SHIFTING = "shifting"
    """Some of its workers may serve, beside an older generation that serves: one of the two takes the other's place,
    a worker at a time."""
    SERVING = "serving"
    STANDBY = "standby"
    """It served before the one that serves, and would come back at once: its workers are paused."""
    DRAINING = "draining"
    """It takes nothing new and leaves when what it holds is finished."""
    STOPPING = "stopping"
    """It never served, and is being ended."""
    GONE = "gone"


class Birth(StrEnum):
    """How a worker's process came to be."""

    FORKED = "forked"
    """From a template, which has imported what all workers need."""
    FORKED_WARM = "forked warm"
    """From one that has imported more (``--warm``)."""
    PRELOADED = "preloaded"
    """From a process that has imported the app as well (``--preload``)."""
    SPAWNED = "spawned"
    """As a program of its own: it was told to be, or no template was to be had."""


class WorkerState(StrEnum):
    """Where a worker process stands."""

    QUEUED = "queued"
    """It has its slot, and no process yet: as many boot as may at once."""
    SPAWNED = "spawned"
    """The process was asked for; it has not said hello."""
    BOOTING = "booting"
    """It takes the listeners, imports the app, starts it up and probes it."""
    READY = "ready"
    """It could serve and accepts nothing yet."""
    ACCEPTING = "accepting"
    """It was told to accept and has not said that it does."""
    SERVING = "serving"
    PAUSED = "paused"
    """It takes nothing new, finishes what it holds as in a drain, and stays: told to, it accepts again at once."""
    DRAINING = "draining"
    STOPPING = "stopping"
    """SIGTERM was sent."""
    KILLED = "killed"
    """SIGKILL was sent."""
    EXITED = "exited"

    @property
    def retiring(self) -> bool:
        """Whether the worker is on its way out."""
        return self in _RETIRING

    @property
    def lets_go(self) -> bool:
        """Whether the worker is to lead no more: it is on its way out, or paused."""
        return self in _RETIRING or self is WorkerState.PAUSED


_RETIRING = frozenset({WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED, WorkerState.EXITED})


class RolloutState(StrEnum):
    """Where a rollout stands. ``ABORTED`` and ``ROLLED_BACK`` are ends, and ``DONE`` is one after its probation."""

    WAITING = "waiting"
    """Accepted; too many older generations still drain."""
    PREPARING = "preparing"
    """Its ``before`` hook runs, or waits for one that does; no worker was started."""
    BOOTING = "booting"
    CUTTING_OVER = "cutting-over"
    SHIFTING = "shifting"
    """Two generations may serve: the workers of the new one take the places of the old ones, one after another."""
    WATCHING = "watching"
    """As many workers of the new generation as its canary has serve beside all the old ones, and are watched."""
    GOING_BACK = "going-back"
    """It was aborted while two generations served: the old one's workers come back, one after another. Its outcome is
    that of an aborted one, which it becomes when the old one serves as before."""
    DRAINING = "draining"
    """The new generation serves: the rollout has succeeded. The old one still drains, or holds something in its
    standby."""
    DONE = "done"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled-back"
    """It succeeded, but its workers crashed in its probation: another rollout brings back the release before it."""

    @property
    def pending(self) -> bool:
        """Whether the cut-over is still ahead."""
        return self in _PENDING

    @property
    def aborted(self) -> bool:
        """Whether it will have no cut-over."""
        return self in _NO_CUT_OVER

    @property
    def shifts(self) -> bool:
        """Whether two generations may serve by it, one of which takes the other's place a worker at a time."""
        return self in _SHIFTS

    @property
    def ended(self) -> bool:
        """Whether nothing is under way any more."""
        return self in _ROLLOUT_ENDS


_PENDING = frozenset(
    {
        RolloutState.WAITING,
        RolloutState.PREPARING,
        RolloutState.BOOTING,
        RolloutState.CUTTING_OVER,
        RolloutState.SHIFTING,
        RolloutState.WATCHING,
    }
)
_NO_CUT_OVER = frozenset({RolloutState.GOING_BACK, RolloutState.ABORTED})
_SHIFTS = frozenset({RolloutState.SHIFTING, RolloutState.WATCHING, RolloutState.GOING_BACK})
_ROLLOUT_ENDS = frozenset({RolloutState.DONE, RolloutState.ABORTED, RolloutState.ROLLED_BACK})

CALLED_OFF: Final = "called-off"
"""Why a rollout was aborted that somebody asked to."""
SUPERSEDED: Final = "superseded"
"""Why a rollout was aborted whose place a later request took."""
LOST: Final = "supervisor-lost"
"""Why a rollout was aborted whose supervisor has ended."""
GATE: Final = "gate"
"""Why a rollout was aborted whose canary did worse than what served."""
INCONCLUSIVE: Final = "inconclusive"
"""Why a rollout was aborted of whose canary that could not be told in time."""
ROLLED_BACK: Final = "rolled-back"
"""Why a hook was ended that came after a rollout which another one has taken back."""
ROLLS_BACK: Final = "rolls-back"
"""Why a rollout that crashed was not rolled back: it was a rollback itself."""


class ScalingState(StrEnum):
    """Where a request for more or fewer workers stands. ``DONE`` and ``ABORTED`` are ends."""

    UNDER_WAY = "under-way"
    DONE = "done"
    """As many serve as were wanted, and the workers beyond have been told to leave."""
    ABORTED = "aborted"
    """It was not waited for any longer; as many are still wanted unless a later request says otherwise."""

    @property
    def ended(self) -> bool:
        """Whether it has an outcome."""
        return self is not ScalingState.UNDER_WAY


class HookState(StrEnum):
    """Where a hook stands. ``DONE`` and ``FAILED`` are ends."""

    WAITING = "waiting"
    """Another one is still there."""
    RUNNING = "running"
    """Its process was asked for."""
    STOPPING = "stopping"
    """It was told to end, with all its process group: SIGTERM."""
    KILLED = "killed"
    """SIGKILL was sent to the group."""
    DONE = "done"
    FAILED = "failed"
    """It did not do what it was to: by itself, or since it was ended."""

    @property
    def under_way(self) -> bool:
        """Whether there is, or is to be, a process of it."""
        return self in _UNDER_WAY

    @property
    def ended(self) -> bool:
        """Whether it has an outcome."""
        return self in _HOOK_ENDS


_UNDER_WAY = frozenset({HookState.RUNNING, HookState.STOPPING, HookState.KILLED})
_HOOK_ENDS = frozenset({HookState.DONE, HookState.FAILED})

HOW_UNKNOWN: Final = "ended; how is not known"
"""What is said of the end of a process that is not our child: only its parent is told more."""
