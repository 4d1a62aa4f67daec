"""Sessions that did not go on in a worker, announced once: as it is reported, and the rest with the worker's end."""

from __future__ import annotations

from stillup.core.model import Worker
from stillup.core.transition import Transition
from stillup.core.values import replace


def tell(transition: Transition, worker: Worker) -> Worker:
    """Announce the sessions that a worker has refused, as far as that was not announced; the worker as it is then."""
    refused = worker.figures.refused
    more = {reason: number - worker.refused_told.get(reason, 0) for reason, number in refused.items()}
    if not any(more.values()):
        return worker
    transition.announce("sessions.refused", worker=worker.name, sessions={why: n for why, n in more.items() if n})
    return replace(worker, refused_told=refused, refused_told_at=transition.now)
