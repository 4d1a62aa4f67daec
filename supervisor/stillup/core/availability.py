"""Whether the service is to be sent requests: what ``/readyz`` answers."""

from __future__ import annotations

from typing import Final

from stillup.core.lifecycle import UP
from stillup.core.model import Fleet
from stillup.core.states import WorkerState

CORDONED: Final = "the service is cordoned"


def why_unready(fleet: Fleet) -> str:
    """Why nobody is to send requests now; empty if anybody may.

    A worker counts while it serves and is heard: one that hangs answers nobody.
    """
    if fleet.state not in UP:
        return f"the service is {fleet.state}"
    workers = fleet.workers.values()
    serving = [worker for worker in workers if worker.state is WorkerState.SERVING]
    if any(worker.hung is None for worker in serving):
        return CORDONED if fleet.cordoned is not None else ""
    wanted = fleet.serving.size if fleet.serving is not None else fleet.size
    hang = f"; {len(serving)} hang" if serving else ""
    return f"0 of {wanted} workers serve{hang}"
