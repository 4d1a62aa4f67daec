"""The service in one line: what ``systemctl status`` shows."""

from __future__ import annotations

from supervisor.core.model import Fleet, GenerationState, RolloutState, WorkerState


def headline(fleet: Fleet) -> str:
    """Which generation serves, by how many workers, what is under way, and what went wrong last."""
    parts: list[str] = []
    serving = fleet.serving
    last = fleet.rollouts[-1] if fleet.rollouts else None
    if serving is None:
        parts.append(fleet.state)
    elif last is not None and last.state is RolloutState.ABORTED and last.failure is not None:
        parts.append(f"gen {last.generation} rejected ({last.reason})")
    if serving is not None:
        up = sum(worker.state is WorkerState.SERVING for worker in fleet.of(serving.id))
        parts.append(f"gen {serving.id} serves, {up} of {serving.size} workers")
        if serving.vacancies:
            parts.append(f"{len(serving.vacancies)} kept waiting, since they keep dying")
    pending = fleet.pending
    if pending is not None:
        parts.append(f"gen {pending.generation} boots" if pending.generation is not None else "a reload waits")
    draining = [g.id for g in fleet.generations.values() if g.state is GenerationState.DRAINING]
    if draining:
        parts.append(f"gen {', '.join(map(str, sorted(draining)))} drains")
    return "; ".join(parts)
