"""The programs that are run around a rollout: one ``before`` its first worker, one ``after`` its cut-over.

1. A rollout has each of them at most once; one that takes another back has none, and a respawn or a scaling is none.
2. One runs at a time, in the order in which they were asked for: the next begins when nobody is left in the process
   group of the one before. One that was to come after a rollout is not run any more once another rollout has cut over.
3. Which process it is, is on record before that becomes its program (``LetHookRun``): whatever becomes of a supervisor,
   the next one knows what runs.
4. Each has a deadline. Past that, and when its rollout is off, its group is told to end, then killed.
5. It does not outlive its supervisor for longer than until the next one: nobody hears what it says, or how it ends.
"""

from __future__ import annotations

from typing import Final

from stillup.core.commands import EndHook, LetHookRun, RunHook
from stillup.core.events import HookStarted
from stillup.core.hook_settings import HookKind
from stillup.core.lifecycle import Step
from stillup.core.model import Fleet, Hook, Release, Rollout
from stillup.core.policy import TimerKind
from stillup.core.states import LOST, SUPERSEDED, HookState
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused

TIMEOUT: Final = "timeout"
"""Why a hook was ended that had not ended in time."""


def has(fleet: Fleet, rollout: Rollout, kind: HookKind) -> bool:
    """Whether a rollout has such a hook."""
    return bool(fleet.policy.hooks.of(kind)) and rollout.rolls_back is None


def ask(transition: Transition, rollout: Rollout, kind: HookKind) -> None:
    """Have the hook of a rollout that has begun run, now or behind another; nothing happens if it has none."""
    fleet = transition.fleet
    if not has(fleet, rollout, kind):
        return
    number = fleet.last_hook + 1
    words = fleet.policy.hooks.of(kind)
    hook = Hook(number, kind, HookState.WAITING, rollout.id, rollout.generation or 0, words)
    transition.fleet = replace(fleet, last_hook=number).with_hook(hook)
    before = fleet.hook_under_way
    if before is not None:
        transition.announce(
            "hook.waiting",
            rollout=hook.rollout,
            generation=hook.generation,
            hook=hook.kind,
            command=hook.name,
            until=before.name,
        )
        if kind is HookKind.BEFORE and before.kind is HookKind.AFTER:
            end(transition, before, SUPERSEDED)
    begin_next(transition)


def begin_next(transition: Transition) -> None:
    """Begin the hook that waits, unless another one is still there."""
    fleet = transition.fleet
    hook = next((one for one in fleet.hooks if one.state is HookState.WAITING), None)
    if hook is None or fleet.hook_under_way is not None:
        return
    hook = transition.move_hook(replace(hook, begun=transition.now), Step.BEGIN)
    transition.order(RunHook(hook, _release(fleet, hook)))
    seconds = fleet.policy.hook_timeout
    transition.set_timer(TimerKind.HOOK, hook.id, seconds)
    transition.announce(
        "hook.begun",
        rollout=hook.rollout,
        generation=hook.generation,
        hook=hook.kind,
        command=hook.name,
        seconds=seconds,
    )


def started(transition: Transition, event: HookStarted) -> None:
    """Note which process a hook is, and let it run; one that was told to end before it was there is told again.

    Raises:
        Refused: it is known, or there is no such hook.
    """
    hook = under_way(transition, event.id)
    if hook.pid is not None:
        raise Refused(f"hook {hook.id} was started already", code="out-of-order")
    transition.fleet = transition.fleet.with_hook(replace(hook, pid=event.pid, started=event.started))
    if hook.state is HookState.RUNNING:
        transition.order(LetHookRun(hook.id))
    else:
        transition.order(EndHook(hook.id, kill=hook.state is HookState.KILLED))


def end(transition: Transition, hook: Hook, reason: str) -> None:
    """Have a hook end, or not begin. Nothing happens if it has ended, or was told to."""
    if hook.state is HookState.WAITING:
        transition.move_hook(replace(hook, ended=transition.now, reason=reason), Step.ABORT)
        tell_failure(transition, hook, reason, f"{hook.name} was not run")
    elif hook.state is HookState.RUNNING:
        transition.move_hook(replace(hook, reason=reason), Step.TERM)
        _order_end(transition, hook)


def end_those_of(transition: Transition, rollout: int, reason: str) -> None:
    """Have the hooks of a rollout that is off, or is taken back, end."""
    for hook in transition.fleet.hooks:
        if hook.rollout == rollout:
            end(transition, hook, reason)


def end_all(transition: Transition, reason: str) -> None:
    """Have every hook end: the service does."""
    for hook in transition.fleet.hooks:
        end(transition, hook, reason)


def give_up_waiting(transition: Transition) -> None:
    """Not run what was to come after a rollout that another one has followed by now."""
    for hook in transition.fleet.hooks:
        if hook.state is HookState.WAITING and hook.kind is HookKind.AFTER:
            end(transition, hook, SUPERSEDED)


def kill(transition: Transition) -> None:
    """Kill the hook that was told to end: somebody insists."""
    hook = transition.fleet.hook_under_way
    if hook is not None and hook.state is HookState.STOPPING:
        transition.move_hook(hook, Step.KILL)
        transition.order(EndHook(hook.id, kill=True))


def overdue(transition: Transition, number: int) -> None:
    """The deadline of a hook has come.

    Raises:
        Refused: it has ended, or was told to.
    """
    hook = under_way(transition, number)
    if hook.state is not HookState.RUNNING:
        raise Refused(f"hook {number} was told to end already", code="out-of-order")
    end(transition, hook, TIMEOUT)


def does_not_end(transition: Transition, number: int) -> None:
    """A hook that was told to end has not done so in time.

    Raises:
        Refused: it has, or was killed.
    """
    if under_way(transition, number).state is not HookState.STOPPING:
        raise Refused(f"hook {number} is not to be killed", code="out-of-order")
    kill(transition)


def lives_on(transition: Transition, hook: Hook) -> None:
    """Have a hook end that another supervisor has left; an order that it may not have heard is given again."""
    if hook.state is HookState.RUNNING:
        end(transition, hook, LOST)
    elif hook.state is HookState.STOPPING:
        _order_end(transition, hook)
    else:
        transition.order(EndHook(hook.id, kill=True))


def under_way(transition: Transition, number: int) -> Hook:
    """The hook of that number, which has a process, or is to have one.

    Raises:
        Refused: there is none.
    """
    hook = transition.fleet.hook_under_way
    if hook is None or hook.id != number:
        raise Refused(f"no hook {number} is under way", code="out-of-order")
    return hook


def tell_failure(transition: Transition, hook: Hook, reason: str, why: str) -> None:
    """Announce that a hook has not done what it was to."""
    transition.announce(
        "hook.failed",
        rollout=hook.rollout,
        generation=hook.generation,
        hook=hook.kind,
        command=hook.name,
        seconds=taken(transition, hook),
        reason=reason,
        why=why,
    )


def taken(transition: Transition, hook: Hook) -> float:
    """Seconds since a hook was begun; 0 if it was not."""
    return transition.now - hook.begun if hook.begun is not None else 0.0


def _order_end(transition: Transition, hook: Hook) -> None:
    transition.order(EndHook(hook.id))
    transition.set_timer(TimerKind.HOOK_TERM, hook.id, transition.fleet.policy.grace)


def _release(fleet: Fleet, hook: Hook) -> Release:
    """What comes, or serves: a rollout that has cut over may be forgotten, its generation is not."""
    generation = fleet.generations.get(hook.generation)
    if generation is not None:
        return generation.release
    return next(one.release for one in fleet.rollouts if one.id == hook.rollout)
