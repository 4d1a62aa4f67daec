"""The law of each state machine, as a table.

1. Every change of a worker's, generation's, rollout's, scaling's or service's state goes through one of these tables.
2. What a table lacks is refused, and the fleet stays as it was.
3. An end state has no way out.
4. What the state of one machine says of another's is a table, too; and so is each set of states that decisions ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final, TypeVar

from stillup.core.states import (
    GenerationState,
    HookState,
    RolloutState,
    ScalingState,
    ServiceState,
    WorkerState,
)
from stillup.errors import Refused


class Step(StrEnum):
    """The inputs of the tables. Lower-case verbs: what happened, or what is being done."""

    HELLO = "hello"
    READY = "ready"
    ACCEPT = "accept"
    SERVE = "serve"
    PAUSE = "pause"
    DRAIN = "drain"
    TERM = "term"
    KILL = "kill"
    EXIT = "exit"
    PREPARE = "prepare"
    BEGIN = "begin"
    SHIFT = "shift"
    WATCH = "watch"
    CUT_OVER = "cut-over"
    ABORT = "abort"
    END = "end"
    DELAY = "delay"
    STOP = "stop"
    RECOVER = "recover"
    ROLL_BACK = "roll-back"


_W = WorkerState
_ENDS = {Step.TERM: _W.STOPPING, Step.KILL: _W.KILLED, Step.EXIT: _W.EXITED}

WORKER: Mapping[WorkerState, Mapping[Step, WorkerState]] = {
    # No order to end it: it has no process, and is not needed any more.
    _W.QUEUED: {Step.BEGIN: _W.SPAWNED, Step.ABORT: _W.EXITED},
    _W.SPAWNED: {Step.HELLO: _W.BOOTING, **_ENDS},
    _W.BOOTING: {Step.READY: _W.READY, **_ENDS},
    _W.READY: {Step.ACCEPT: _W.ACCEPTING, **_ENDS},
    _W.ACCEPTING: {Step.SERVE: _W.SERVING, Step.DRAIN: _W.DRAINING, **_ENDS},
    _W.SERVING: {Step.PAUSE: _W.PAUSED, Step.DRAIN: _W.DRAINING, **_ENDS},
    _W.PAUSED: {Step.ACCEPT: _W.ACCEPTING, Step.DRAIN: _W.DRAINING, **_ENDS},
    # DRAIN again: a drain for a successor becomes a final one. SERVE: the word of it crossed ours.
    _W.DRAINING: {Step.DRAIN: _W.DRAINING, Step.SERVE: _W.DRAINING, **_ENDS},
    _W.STOPPING: {Step.KILL: _W.KILLED, Step.EXIT: _W.EXITED},
    _W.KILLED: {Step.EXIT: _W.EXITED},
    _W.EXITED: {},
}

_G = GenerationState
GENERATION: Mapping[GenerationState, Mapping[Step, GenerationState]] = {
    # PAUSE: it was to come back from its standby, and stays there.
    _G.BOOTING: {
        Step.READY: _G.ADMITTING,
        Step.SHIFT: _G.SHIFTING,
        Step.PAUSE: _G.STANDBY,
        Step.ABORT: _G.STOPPING,
    },
    _G.ADMITTING: {Step.CUT_OVER: _G.SERVING, Step.ABORT: _G.DRAINING},
    _G.SHIFTING: {Step.CUT_OVER: _G.SERVING, Step.ABORT: _G.DRAINING},
    _G.SERVING: {Step.PAUSE: _G.STANDBY, Step.DRAIN: _G.DRAINING},
    _G.STANDBY: {Step.BEGIN: _G.BOOTING, Step.DRAIN: _G.DRAINING},
    _G.DRAINING: {Step.END: _G.GONE},
    _G.STOPPING: {Step.END: _G.GONE},
    _G.GONE: {},
}

_R = RolloutState
ROLLOUT: Mapping[RolloutState, Mapping[Step, RolloutState]] = {
    _R.WAITING: {Step.PREPARE: _R.PREPARING, Step.BEGIN: _R.BOOTING, Step.ABORT: _R.ABORTED},
    _R.PREPARING: {Step.BEGIN: _R.BOOTING, Step.ABORT: _R.ABORTED},
    _R.BOOTING: {Step.READY: _R.CUTTING_OVER, Step.SHIFT: _R.SHIFTING, Step.ABORT: _R.ABORTED},
    _R.CUTTING_OVER: {Step.CUT_OVER: _R.DRAINING, Step.ABORT: _R.ABORTED},
    _R.SHIFTING: {Step.WATCH: _R.WATCHING, Step.CUT_OVER: _R.DRAINING, Step.ABORT: _R.GOING_BACK},
    # No CUT_OVER: nothing but a passed gate, or somebody, leads to it.
    _R.WATCHING: {Step.SHIFT: _R.SHIFTING, Step.ABORT: _R.GOING_BACK},
    _R.GOING_BACK: {Step.END: _R.ABORTED},
    _R.DRAINING: {Step.END: _R.DONE, Step.ROLL_BACK: _R.ROLLED_BACK},
    # Its probation may outlast the drain of the old generation.
    _R.DONE: {Step.ROLL_BACK: _R.ROLLED_BACK},
    _R.ABORTED: {},
    _R.ROLLED_BACK: {},
}

_C = ScalingState
SCALING: Mapping[ScalingState, Mapping[Step, ScalingState]] = {
    _C.UNDER_WAY: {Step.END: _C.DONE, Step.ABORT: _C.ABORTED},
    _C.DONE: {},
    _C.ABORTED: {},
}

_H = HookState
HOOK: Mapping[HookState, Mapping[Step, HookState]] = {
    _H.WAITING: {Step.BEGIN: _H.RUNNING, Step.ABORT: _H.FAILED},
    _H.RUNNING: {Step.TERM: _H.STOPPING, Step.END: _H.DONE, Step.ABORT: _H.FAILED},
    # No END: what was told to end has not done what it was to, whatever its exit code.
    _H.STOPPING: {Step.KILL: _H.KILLED, Step.ABORT: _H.FAILED},
    _H.KILLED: {Step.ABORT: _H.FAILED},
    _H.DONE: {},
    _H.FAILED: {},
}

_S = ServiceState
SERVICE: Mapping[ServiceState, Mapping[Step, ServiceState]] = {
    _S.STARTING: {Step.SERVE: _S.SERVING, Step.STOP: _S.STOPPING},
    _S.SERVING: {Step.SERVE: _S.SERVING, Step.DELAY: _S.STOP_DELAY, Step.STOP: _S.STOPPING},
    _S.STOP_DELAY: {Step.STOP: _S.STOPPING, Step.RECOVER: _S.SERVING},
    # RECOVER: the supervisor ended before its stop did, and the service was started again.
    _S.STOPPING: {Step.END: _S.STOPPED, Step.RECOVER: _S.STARTING},
    _S.STOPPED: {},
}

BOOTS: Final = frozenset({_W.SPAWNED, _W.BOOTING})
"""Workers that have yet to say that they are READY."""

UNACCEPTED: Final = BOOTS | {_W.QUEUED, _W.READY}
"""Workers that were not told to accept. Without a supervisor they leave: nobody else could tell them to."""

COMING: Final = UNACCEPTED | {_W.ACCEPTING}
"""Workers on the way into service."""

APP_MAY_HAVE_STARTED: Final = frozenset({_W.BOOTING, _W.READY, _W.ACCEPTING})
"""Workers on the way into service whose app has to be given the time to shut down, if it has started."""

HOLDS_CONNECTIONS: Final = frozenset({_W.ACCEPTING, _W.SERVING, _W.PAUSED})
"""Workers that leave by a drain: they may hold connections."""

ENDED_BY_ORDER: Final = frozenset({_W.STOPPING, _W.KILLED})
"""Workers that were sent a signal to end."""

ADMITTABLE: Final = frozenset({_W.READY, _W.PAUSED})
"""Workers that could serve, and accept nothing yet."""

LEAVING: Final = frozenset({_G.DRAINING, _G.STOPPING})
"""Generations whose workers have all been told to leave."""

OLD_IS_LEFT: Final = frozenset({_G.DRAINING, _G.STANDBY, _G.BOOTING, _G.ADMITTING})
"""A generation that was replaced, while there may be something left that it held then; its worker may come back."""

POSSIBLE: Final[Mapping[GenerationState, AbstractSet[WorkerState]]] = {
    _G.BOOTING: UNACCEPTED | ENDED_BY_ORDER | {_W.PAUSED, _W.DRAINING},
    _G.ADMITTING: ENDED_BY_ORDER | {_W.ACCEPTING, _W.SERVING, _W.DRAINING},
    _G.SHIFTING: frozenset(_W) - {_W.EXITED, _W.PAUSED},
    _G.SERVING: frozenset(_W) - {_W.EXITED, _W.PAUSED},
    _G.STANDBY: ENDED_BY_ORDER | {_W.PAUSED, _W.DRAINING},
    _G.DRAINING: ENDED_BY_ORDER | {_W.DRAINING},
    _G.STOPPING: ENDED_BY_ORDER,
    _G.GONE: frozenset(),
}
"""The states that a worker may have while its generation has that one."""

PREVIOUS_MAY_LEAVE: Final = frozenset({_R.CUTTING_OVER, _R.SHIFTING, _R.DRAINING, _R.ROLLED_BACK})
"""Rollouts whose previous generation may be there, and be gone next: at once, if it has no worker at the cut-over."""

UP: Final = frozenset({_S.SERVING, _S.STOP_DELAY})
"""The service, while a generation serves."""

ENDING: Final = frozenset({_S.STOP_DELAY, _S.STOPPING, _S.STOPPED})
"""The service, once a stop was asked for."""

UNSETTLED: Final[Mapping[RolloutState, GenerationState]] = {
    _R.BOOTING: _G.BOOTING,
    _R.CUTTING_OVER: _G.ADMITTING,
    _R.SHIFTING: _G.SHIFTING,
    _R.WATCHING: _G.SHIFTING,
    _R.GOING_BACK: _G.SHIFTING,
}
"""The state of the generation that a rollout has begun, while it has neither taken the old one's place nor left."""

MAY_BE_EMPTY: Final = frozenset({_G.SERVING, _G.SHIFTING})
"""Generations that are there without a worker, too; so is one that is to come by a plan (``core.plan``)."""

IN_SERVICE: Final = frozenset({_G.SERVING, _G.SHIFTING})
"""Generations in which a worker accepts as soon as it is READY."""

S = TypeVar("S", WorkerState, GenerationState, RolloutState, ScalingState, HookState, ServiceState)


def after(table: Mapping[S, Mapping[Step, S]], state: S, step: Step) -> S:
    """The state that follows.

    Raises:
        Refused: the table has no such step from that state.
    """
    try:
        return table[state][step]
    except KeyError:
        raise Refused(f"no '{step}' while {state}", code="out-of-order") from None
