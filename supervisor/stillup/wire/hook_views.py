"""Programs that are run around a rollout, in a shape of the control API. Durations are seconds."""

from __future__ import annotations

import msgspec

from stillup.core.model import Fleet, Hook
from stillup.core.states import HookState


class HookView(msgspec.Struct, frozen=True):
    """A program that is run around a rollout: under way, or ended."""

    id: int
    hook: str
    """``before`` its first worker, or ``after`` its cut-over."""
    command: str
    """Its name and the plain words behind that: no option, address or path."""
    state: str
    """``waiting`` for another hook to end, ``running``, ``stopping``, ``killed``, ``done`` or ``failed``."""
    rollout: int
    generation: int
    pid: int | None = None
    seconds: float = 0.0
    """That it has run, or took; 0 if it was not run."""
    left: float | None = None
    """Until its deadline; null unless it runs."""
    reason: str = ""
    """Of one that failed, or was told to end: ``failed``, ``timeout``, or why its rollout was aborted."""


def hook_view(fleet: Fleet, hook: Hook, now: float) -> HookView:
    """Show one."""
    seconds = (hook.ended if hook.ended is not None else now) - hook.begun if hook.begun is not None else 0.0
    left = max(0.0, fleet.policy.hook_timeout - seconds) if hook.state is HookState.RUNNING else None
    return HookView(
        id=hook.id,
        hook=hook.kind,
        command=hook.name,
        state=hook.state,
        rollout=hook.rollout,
        generation=hook.generation,
        pid=hook.pid,
        seconds=seconds,
        left=left,
        reason=hook.reason,
    )


def hooks_of(fleet: Fleet, rollout: int, now: float) -> list[HookView]:
    """Show those of a rollout, as far as they are known."""
    return [hook_view(fleet, hook, now) for hook in fleet.hooks if hook.rollout == rollout]


def hook_under_way(fleet: Fleet, now: float) -> HookView | None:
    """Show the one that is under way, if one is."""
    hook = fleet.hook_under_way
    return hook_view(fleet, hook, now) if hook is not None else None
