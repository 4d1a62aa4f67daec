"""The law of each state machine, as a table.

1. Every change of a worker's, generation's, rollout's, scaling's or service's state goes through one of these tables.
2. What a table lacks is refused, and the fleet stays as it was.
3. An end state has no way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from supervisor.core.model import GenerationState, RolloutState, ScalingState, ServiceState, WorkerState
from supervisor.errors import Refused


class Step(StrEnum):
    """The inputs of the tables. Lower-case verbs: what happened, or what is being done."""

    HELLO = "hello"
    READY = "ready"
    ACCEPT = "accept"
    SERVE = "serve"
    DRAIN = "drain"
    TERM = "term"
    KILL = "kill"
    EXIT = "exit"
    BEGIN = "begin"
    CUT_OVER = "cut-over"
    ABORT = "abort"
    END = "end"
    STOP = "stop"
    RECOVER = "recover"
    ROLL_BACK = "roll-back"


_W = WorkerState
_ENDS = {Step.TERM: _W.STOPPING, Step.KILL: _W.KILLED, Step.EXIT: _W.EXITED}

WORKER: Mapping[WorkerState, Mapping[Step, WorkerState]] = {
    _W.SPAWNED: {Step.HELLO: _W.BOOTING, **_ENDS},
    _W.BOOTING: {Step.READY: _W.READY, **_ENDS},
    _W.READY: {Step.ACCEPT: _W.ACCEPTING, **_ENDS},
    _W.ACCEPTING: {Step.SERVE: _W.SERVING, Step.DRAIN: _W.DRAINING, **_ENDS},
    _W.SERVING: {Step.DRAIN: _W.DRAINING, **_ENDS},
    # DRAIN again: a drain for a successor becomes a final one. SERVE: the word of it crossed ours.
    _W.DRAINING: {Step.DRAIN: _W.DRAINING, Step.SERVE: _W.DRAINING, **_ENDS},
    _W.STOPPING: {Step.KILL: _W.KILLED, Step.EXIT: _W.EXITED},
    _W.KILLED: {Step.EXIT: _W.EXITED},
    _W.EXITED: {},
}

_G = GenerationState
GENERATION: Mapping[GenerationState, Mapping[Step, GenerationState]] = {
    _G.BOOTING: {Step.READY: _G.ADMITTING, Step.ABORT: _G.STOPPING},
    _G.ADMITTING: {Step.CUT_OVER: _G.SERVING, Step.ABORT: _G.DRAINING},
    _G.SERVING: {Step.DRAIN: _G.DRAINING},
    _G.DRAINING: {Step.END: _G.GONE},
    _G.STOPPING: {Step.END: _G.GONE},
    _G.GONE: {},
}

_R = RolloutState
ROLLOUT: Mapping[RolloutState, Mapping[Step, RolloutState]] = {
    _R.WAITING: {Step.BEGIN: _R.BOOTING, Step.ABORT: _R.ABORTED},
    _R.BOOTING: {Step.READY: _R.CUTTING_OVER, Step.ABORT: _R.ABORTED},
    _R.CUTTING_OVER: {Step.CUT_OVER: _R.DRAINING, Step.ABORT: _R.ABORTED},
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

_S = ServiceState
SERVICE: Mapping[ServiceState, Mapping[Step, ServiceState]] = {
    _S.STARTING: {Step.SERVE: _S.SERVING, Step.STOP: _S.STOPPING},
    _S.SERVING: {Step.SERVE: _S.SERVING, Step.STOP: _S.STOPPING},
    # RECOVER: the supervisor ended before its stop did, and the service was started again.
    _S.STOPPING: {Step.END: _S.STOPPED, Step.RECOVER: _S.STARTING},
    _S.STOPPED: {},
}

S = TypeVar("S", WorkerState, GenerationState, RolloutState, ScalingState, ServiceState)


def after(table: Mapping[S, Mapping[Step, S]], state: S, step: Step) -> S:
    """The state that follows.

    Raises:
        Refused: the table has no such step from that state.
    """
    try:
        return table[state][step]
    except KeyError:
        raise Refused(f"no '{step}' while {state}", code="out-of-order") from None
