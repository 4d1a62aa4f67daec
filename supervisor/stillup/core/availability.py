"""Whether the service is to be sent requests: what ``/readyz`` and HAProxy's agent check are answered."""

from __future__ import annotations

from typing import Final

from stillup.core.lifecycle import UP
from stillup.core.model import Fleet
from stillup.core.states import ServiceState, WorkerState

CORDONED: Final = "the service is cordoned"


def why_unready(fleet: Fleet) -> str:
    """Why nobody is to send requests now; empty if anybody may.

    A worker counts while it serves and is heard: one that hangs answers nobody.
    """
    if fleet.state not in UP:
        return f"the service is {fleet.state}"
    serving = [worker for worker in fleet.workers.values() if worker.state is WorkerState.SERVING]
    if any(worker.hung is None for worker in serving):
        return CORDONED if fleet.cordoned is not None else ""
    hang = f"; {len(serving)} hang" if serving else ""
    return f"0 of {_wanted(fleet)} workers serve{hang}"


def agent_word(fleet: Fleet) -> str:
    """What an agent check is answered (HAProxy's ``agent-check``), without the end of the line.

    ``up 50%``: a weight, by how many of the workers that are wanted serve; ``up 0%``: no new clients, while those who
    are there are served; ``down #WHY``: nobody serves. Never ``ready``: that would undo what an operator of HAProxy has
    set (``maint``).
    """
    why = why_unready(fleet)
    if why == CORDONED or fleet.state in (ServiceState.STOPPING, ServiceState.STOPPED):
        return "up 0%"
    if why:
        return f"down #{why}"
    heard = sum(worker.state is WorkerState.SERVING and worker.hung is None for worker in fleet.workers.values())
    return f"up {min(100, max(1, 100 * heard // _wanted(fleet)))}%"


def _wanted(fleet: Fleet) -> int:
    return fleet.serving.size if fleet.serving is not None else fleet.size
