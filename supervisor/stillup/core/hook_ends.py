"""What comes of the end of a hook.

1. ``before``: the rollout boots if it has exited with 0 in its own time; else the rollout is rejected, with the end of
   what it wrote. What serves goes on either way.
2. ``after``: its failure is told, and changes nothing.
"""

from __future__ import annotations

from typing import Final

from stillup.core import hooks, rollout, service
from stillup.core.events import HookEnded, HookLeft
from stillup.core.lifecycle import Step
from stillup.core.model import Failure, Hook
from stillup.core.states import HOW_UNKNOWN, LOST, HookState
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused

WELL: Final = "exited 0"
FAILED: Final = "failed"
"""Why a hook failed that nobody had told to end."""


def ended(transition: Transition, event: HookEnded) -> None:
    """A hook has ended, with all that was in its process group.

    Raises:
        Refused: it is none that is under way.
    """
    hook = replace(hooks.under_way(transition, event.id), ended=transition.now)
    failure = None
    if hook.state is HookState.RUNNING and event.how == WELL:
        transition.move_hook(hook, Step.END)
        transition.announce(
            "hook.done",
            rollout=hook.rollout,
            generation=hook.generation,
            hook=hook.kind,
            command=hook.name,
            seconds=hooks.taken(transition, hook),
        )
    else:
        failure = Failure("hook", _why(transition, hook, event.how), pid=hook.pid, output=event.output)
        hook = transition.move_hook(replace(hook, reason=hook.reason or FAILED), Step.ABORT)
        hooks.tell_failure(transition, hook, hook.reason, failure.message)
    _go_on(transition, hook, failure)
    hooks.begin_next(transition)
    service.end_if_empty(transition)


def left(transition: Transition, event: HookLeft) -> None:
    """Deal with the hook that another supervisor has left.

    Raises:
        Refused: it has left none.
    """
    hook = transition.fleet.hook_under_way
    if hook is None:
        raise Refused("no hook was left", code="out-of-order")
    if event.lives:
        hooks.lives_on(transition, hook)
    else:
        lost = replace(hook, reason=hook.reason or LOST)
        transition.fleet = transition.fleet.with_hook(lost)
        ended(transition, HookEnded(hook.id, HOW_UNKNOWN))


def _go_on(transition: Transition, hook: Hook, failure: Failure | None) -> None:
    """Boot the rollout that has waited for a hook, or reject it; nothing if none has."""
    pending = transition.fleet.pending
    if pending is None or pending.id != hook.rollout:
        return
    if failure is None:
        rollout.boot(transition, pending)
    else:
        service.fail_rollout(transition, pending, failure)


def _why(transition: Transition, hook: Hook, how: str) -> str:
    if hook.reason == hooks.TIMEOUT:
        seconds = transition.fleet.policy.hook_timeout
        return f"{hook.name} had not ended after {seconds:g} s (--hook-timeout), and was ended"
    return f"{hook.name} was ended ({hook.reason})" if hook.reason else f"{hook.name} {how}"
