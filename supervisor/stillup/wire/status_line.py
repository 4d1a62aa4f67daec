"""The service in one line: what ``systemctl status`` shows."""

from __future__ import annotations

from stillup.core.model import Fleet, Rollout
from stillup.core.outcome_records import RefusedReload
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.wire.fleet_views import probed, step


def status_line(fleet: Fleet) -> str:
    """Which generation serves, by how many workers, what is under way, and what went wrong last."""
    parts: list[str] = []
    serving = fleet.serving
    last = fleet.rollouts[-1] if fleet.rollouts else None
    if serving is None:
        parts.append(fleet.state)
    elif (refused := _refused_since(fleet, last)) is not None:
        parts.append(_refusal(refused))
    elif last is not None and last.state.aborted and last.failure is not None:
        parts.append(f"gen {last.generation} rejected ({last.reason})")
    elif last is not None and (bad := fleet.rollout(last.rolls_back or 0)) and bad.state is RolloutState.ROLLED_BACK:
        parts.append(f"gen {bad.generation} crashed, rolled back ('stillup reload --force' deploys it again)")
    if serving is not None:
        up = sum(worker.state is WorkerState.SERVING for worker in fleet.of(serving.id))
        parts.append(f"gen {serving.id} serves, {up} of {serving.size} workers")
        if serving.vacancies:
            parts.append(f"{len(serving.vacancies)} kept waiting, since they keep dying")
    if fleet.cordoned is not None:
        parts.append("cordoned")
    parts += filter(None, (_under_way(fleet, rollout) for rollout in fleet.rollouts))
    draining = [g.id for g in fleet.generations.values() if g.state is GenerationState.DRAINING]
    if draining:
        parts.append(f"gen {', '.join(map(str, sorted(draining)))} drains")
    if fleet.standby is not None:
        parts.append(f"gen {fleet.standby.id} stands by")
    return "; ".join(parts)


def _under_way(fleet: Fleet, rollout: Rollout) -> str:
    """What a rollout does before its cut-over, or on its way back; empty of any other."""
    if rollout.state is RolloutState.WAITING:
        return "a reload waits"
    if rollout.state is RolloutState.PREPARING:
        hook = next(one for one in fleet.hooks if one.rollout == rollout.id)
        return f"gen {rollout.generation} waits for its hook, {hook.name}"
    at, seen = step(fleet, rollout), probed(fleet, rollout.generation)
    probe = f", {seen}" if seen else ""
    if at is not None:
        does = "is watched" if rollout.state is RolloutState.WATCHING else "comes"
        does = does if rollout.state.pending else "goes back"
        return f"gen {rollout.generation} {does}, {at.new} of {at.of} workers{probe}"
    return f"gen {rollout.generation} boots{probe}" if rollout.state.pending else ""


def _refused_since(fleet: Fleet, last: Rollout | None) -> RefusedReload | None:
    """The last reload that was refused, if none was begun since."""
    refused = fleet.refused[-1] if fleet.refused else None
    return refused if refused is not None and (last is None or refused.at >= last.asked) else None


def _refusal(refused: RefusedReload) -> str:
    way_out = "; 'stillup reload --force' deploys it again" if refused.code == "rolled-back-before" else ""
    return f"reload refused ({refused.code}{way_out})"
