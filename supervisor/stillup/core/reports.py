"""What workers report of themselves while they live.

1. A report is a heartbeat, whatever is in it.
2. What a report says of connections that were lost, cut or refused is told once, by how many more they are than
   before; and no more than once in LOST_PAUSE seconds, so that nobody's history is made of what one worker says. What
   it says of threads is told once in its life.
3. What cannot be true is not kept (``worker_figures.plausible``).
"""

from __future__ import annotations

from typing import Final

from stillup.core import cut_requests, hang, refused_sessions, slots
from stillup.core.drain import WITH_OWN_TIME
from stillup.core.events import Reported
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.core.worker_figures import plausible

LOST_PAUSE: Final = 10.0
"""Seconds between two announcements of connections that one worker has lost, cut or refused."""


def reported(transition: Transition, event: Reported) -> None:
    """Keep a worker's figures, and have it replaced if it asks for that."""
    worker = hang.hear(transition, transition.started(event.serial))
    before = worker.figures
    worker = replace(worker, figures=plausible(event.figures, worker.figures), reported=transition.now)
    if worker.drain is not None and not WITH_OWN_TIME.isdisjoint(worker.figures.classes):
        worker = replace(worker, drain=replace(worker.drain, streamed=transition.now))
    lost = worker.figures.crossed.lost - worker.lost_told
    if lost > 0 and _may_tell(transition, worker.lost_told_at):
        transition.announce("connections.lost", worker=worker.name, connections=lost)
        worker = replace(worker, lost_told=worker.figures.crossed.lost, lost_told_at=transition.now)
    if _may_tell(transition, worker.drain.cut_told_at if worker.drain is not None else None):
        worker = cut_requests.tell(transition, worker)
    if _may_tell(transition, worker.refused_told_at):
        worker = refused_sessions.tell(transition, worker)
    if worker.figures.threads and not before.threads:
        transition.announce("worker.held-up", worker=worker.name, message=worker.figures.threads)
    transition.put(worker)
    if event.recycle:
        slots.recycle(transition, worker, event.recycle)


def _may_tell(transition: Transition, told: float | None) -> bool:
    return told is None or transition.now - told >= LOST_PAUSE
