"""What a worker's drain has cut, announced once: as it is reported, and the rest with the worker's end."""

from __future__ import annotations

from stillup.core.model import Worker
from stillup.core.transition import Transition
from stillup.core.values import replace


def tell(transition: Transition, worker: Worker) -> Worker:
    """Announce what a worker's drain has cut, as far as that was not announced; the worker as it is then."""
    figures, drain = worker.figures, worker.drain
    if drain is None:
        return worker  # it has none to cut anything
    more = {kind: number - drain.cut_told.get(kind, 0) for kind, number in figures.cut.items()}
    if not any(more.values()):
        return worker
    transition.announce("connections.cut", worker=worker.name, connections={kind: n for kind, n in more.items() if n})
    return replace(worker, drain=replace(drain, cut_told=figures.cut, cut_told_at=transition.now))
