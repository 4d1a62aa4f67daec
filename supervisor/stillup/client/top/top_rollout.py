"""The rollout that is under way, step by step with the time that each takes; else how the last ones ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stillup.client.outcome_output import status_lines
from stillup.client.progress_output import held_text, move_text, one_of, process_text, releases_text
from stillup.client.text_output import hook_text, rollout_name, step_text
from stillup.client.top.top_lines import Styled
from stillup.client.watch_output import passed_line, watch_lines
from stillup.core.amounts import amount, sessions_among
from stillup.core.hook_settings import HookKind
from stillup.core.states import RolloutState
from stillup.core.strategy import StrategyKind
from stillup.wire.api_shapes import RolloutView, Status

_ENDS: Final = frozenset({RolloutState.DONE, RolloutState.ABORTED, RolloutState.ROLLED_BACK})
_MOVES: Final = frozenset({RolloutState.SHIFTING, RolloutState.WATCHING, RolloutState.GOING_BACK})


def is_under_way(status: Status) -> bool:
    """Whether something of a rollout changes from one second to the next."""
    rollout = status.rollout
    return rollout is not None and (rollout.outcome is None or rollout.step is not None)


def rollout_lines(status: Status) -> list[Styled]:
    """What there is to say of rollouts: each line with its style."""
    rollout = status.rollout
    if rollout is None or not _goes_on(rollout):
        return list(status_lines(status.outcomes, status.deaths))
    name = f"gen {move_text(rollout)}" if rollout.generation is not None else rollout_name(rollout)
    how = "" if rollout.strategy == StrategyKind.BLUE_GREEN else f" ({rollout.strategy})"
    head = f"  {name}  {rollout.state}{how}  {releases_text(rollout)}"
    return [(_timed(head, rollout.total), "bold"), *_steps(rollout)]


def _goes_on(rollout: RolloutView) -> bool:
    """Whether there is more to come of it: its cut-over, or what follows that."""
    left = (rollout.probation_left, rollout.standby_left)
    return rollout.state not in _ENDS or any(one is not None for one in left)


def _steps(rollout: RolloutView) -> Iterator[Styled]:
    """Those that are done, and the one that is waited for, in their order."""
    if rollout.state == RolloutState.WAITING:
        held = held_text(rollout.drains, rollout.drain_left)
        yield f"  waits     until gen {one_of(rollout.waits_for)} has left: {held}", "yellow"
    yield from _hooks(rollout, HookKind.BEFORE)
    if rollout.booting_for is not None:
        boots = rollout.state == RolloutState.BOOTING
        parts = [f"{rollout.workers_ready}/{rollout.workers_wanted} ready", rollout.probe]
        if rollout.workers_queued:
            parts.append(f"{rollout.workers_queued} queued")
        style = "cyan" if boots else ""
        yield _timed(f"  boot      {', '.join(filter(None, parts))}", rollout.booting_for), style
    if rollout.failure is not None:
        yield f"  failed    {process_text(rollout.failure)} {rollout.failure.message}", "red"
    for shown in (passed_line(rollout), *watch_lines(rollout)):
        if shown:
            yield shown, "cyan"
    if rollout.state in _MOVES:
        what = "back" if rollout.state == RolloutState.GOING_BACK else "roll"
        held = f", {held_text(rollout.drains, rollout.drain_left)}" if rollout.drains else ""
        yield f"  {what:<9} {step_text(rollout)}{held}", "cyan"
    if rollout.cut_over_took is not None:
        yield _timed("  cut over", rollout.cut_over_took), ""
    if rollout.moved:
        moved = f"{amount(rollout.moved, 'connection')}{sessions_among(rollout.moved_sessions)}"
        yield f"  moved     {moved}, longest pause {rollout.longest_pause * 1000:.0f} ms", ""
    if rollout.state == RolloutState.DRAINING and rollout.previous is not None:
        yield f"  drain     gen {rollout.previous}: {held_text(rollout.drains, rollout.drain_left)}", "yellow"
    yield from _hooks(rollout, HookKind.AFTER)
    if rollout.standby_left is not None:
        back = f"for {rollout.standby_left:.0f} s a rollback has it serve at once"
        yield f"  standby   gen {rollout.previous}: {back}", ""
    if rollout.probation_left is not None:
        deaths = amount(rollout.deaths, "death")
        yield f"  probation {deaths}; {rollout.probation_left:.0f} s left", "yellow" if rollout.deaths else ""


def _hooks(rollout: RolloutView, kind: HookKind) -> Iterator[Styled]:
    for hook in rollout.hooks:
        if hook.hook == kind:
            style = "red" if hook.state == "failed" else ("" if hook.state == "done" else "cyan")
            yield f"  hook      {hook_text(hook)}", style


def _timed(what: str, seconds: float) -> str:
    """What was done, and how long that took or has taken so far."""
    took = f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    return f"{what:<42}  {took}"
