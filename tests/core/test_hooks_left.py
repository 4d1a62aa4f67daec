"""What another supervisor makes of a hook that was under way when its supervisor ended."""

from __future__ import annotations

import pytest

from stillup.core.commands import EndHook, RunHook
from stillup.core.events import AbortAsked, HookEnded, HookLeft, HookStarted
from stillup.core.hook_settings import HookKind
from stillup.core.model import Fleet
from stillup.core.policy import TimerKind
from stillup.core.rebuild import consistent, first_fleet
from stillup.core.states import HOW_UNKNOWN, LOST, HookState, RolloutState
from stillup.core.values import replace
from stillup.errors import Refused
from tests.core.story import NEW, OLD, Story
from tests.core.test_hooks import AFTER, BEFORE, hook, hooked


def test_a_supervisor_that_dies_while_a_hook_runs() -> None:
    """Its rollout is aborted as one that boots is; the hook is ended, and the next reload's runs when it has gone."""
    story = hooked()
    story.reload()
    story.tell(HookStarted(1, 501, 1))
    assert consistent(story.fleet)
    story.take_over(1)
    assert story.orders == [EndHook(1)]
    assert (story.rollout(2).state, story.rollout(2).reason) == (RolloutState.ABORTED, LOST)
    story.tell(HookLeft(lives=True))
    assert story.orders == [EndHook(1)]
    story.reload()
    assert story.orders == []
    story.tell(HookEnded(1, HOW_UNKNOWN))
    assert story.news["hook.failed"]["reason"] == LOST
    assert story.orders == [RunHook(hook(story), NEW)]


def test_a_hook_that_was_killed_when_its_supervisor_died() -> None:
    """The order is given again."""
    story = hooked()
    story.reload()
    story.tell(HookStarted(1, 501, 1), AbortAsked("test"))
    story.fire(TimerKind.HOOK_TERM, 1)
    story.take_over(1)
    story.tell(HookLeft(lives=True))
    assert story.orders == [EndHook(1, kill=True)]


def test_a_hook_that_is_not_there_any_more() -> None:
    """How it ended nobody knows; it is told of, and the next one begins."""
    story = hooked()
    story.reload()
    story.take_over(1)
    story.tell(HookLeft(lives=False))
    assert story.news["hook.failed"]["reason"] == LOST
    assert story.fleet.hook_under_way is None
    with pytest.raises(Refused, match="no hook was left"):
        story.tell(HookLeft(lives=False))


@pytest.mark.parametrize("lives", [True, False])
def test_a_hook_after_a_rollout_does_not_outlive_its_supervisor(lives: bool) -> None:
    """It is ended as well; its rollout stays what it is."""
    story = hooked(AFTER)
    story.reload()
    story.come_to_serve()
    story.tell(HookStarted(1, 501, 1))
    story.take_over(1, 2)
    story.tell(HookLeft(lives=lives))
    assert story.orders == ([EndHook(1)] if lives else [])
    if lives:
        story.tell(HookEnded(1, HOW_UNKNOWN))
    assert story.news["hook.failed"]["reason"] == LOST
    assert story.rollout(2).state is RolloutState.DRAINING


def test_a_hook_of_a_start_whose_supervisor_died() -> None:
    """There is no worker, and so nothing to go on with but the hook: the next start's waits until that has gone."""
    lost = Story(1, BEFORE)
    lost.reload(OLD)
    lost.tell(HookStarted(1, 501, 1))
    story = Story()
    story.fleet = first_fleet(BEFORE, 1, lost.fleet)
    assert consistent(story.fleet)
    story.tell(HookLeft(lives=True))
    assert story.orders == [EndHook(1)]
    story.reload(OLD)
    assert (story.orders, story.rollout(2).state) == ([], RolloutState.PREPARING)
    story.tell(HookEnded(1, HOW_UNKNOWN))
    assert story.rollout(2).state is RolloutState.PREPARING
    assert story.orders == [RunHook(hook(story), OLD)]
    assert first_fleet(BEFORE, 1, Fleet(last_rollout=3)).last_rollout == 0


def changed(**fields: object) -> Fleet:
    """A fleet whose hook runs, with another value of that."""
    story = hooked()
    story.reload()
    return story.fleet.with_hook(replace(hook(story), **fields))  # type: ignore[arg-type]


def test_what_could_not_have_been() -> None:
    """A record with two hooks under way, one of the future, one of no words, or a rollout that waits for none."""
    fleet = changed()
    assert consistent(fleet)
    assert not consistent(changed(state=HookState.DONE))
    assert not consistent(changed(kind=HookKind.AFTER))
    assert not consistent(changed(words=()))
    assert not consistent(changed(pid=0))
    assert not consistent(replace(fleet, last_hook=0))
    assert not consistent(replace(fleet, hooks=fleet.hooks * 2))
    rollouts = (fleet.rollouts[0], replace(fleet.rollouts[1], generation=None))
    assert not consistent(replace(fleet, rollouts=rollouts))
