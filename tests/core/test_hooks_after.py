"""Programs that are run after a rollout, told as stories: their turn, and what ends them."""

from __future__ import annotations

from stillup.core.commands import EndHook, RunHook
from stillup.core.events import AbortAsked, HookEnded, HookStarted, RollbackAsked
from stillup.core.hook_settings import HookKind
from stillup.core.model import HISTORY
from stillup.core.policy import Policy
from stillup.core.probation import CRASHED
from stillup.core.states import ROLLED_BACK, SUPERSEDED, HookState, RolloutState
from stillup.core.values import replace
from tests.core.story import NEW, OLD, serving
from tests.core.test_hooks import AFTER, BEFORE, BOTH, hook, hooked, run


def test_after_its_cut_over_a_rollout_has_its_other_hook_run() -> None:
    """Once the new generation serves; its failure is told, and nothing else comes of it."""
    story = hooked(AFTER)
    story.reload()
    story.ready(2)
    story.serve(2)
    assert RunHook(hook(story), NEW) in story.orders
    assert (hook(story).kind, hook(story).name) == (HookKind.AFTER, "notify")
    assert story.news["hook.begun"]["hook"] == "after"
    before = story.fleet
    run(story, "exited 1")
    assert story.orders == []
    assert list(story.news) == ["hook.failed"]
    assert replace(story.fleet, hooks=()) == replace(before, hooks=())


def test_a_reload_ends_what_still_runs_after_the_one_before() -> None:
    """Its own hook runs when that has ended, which may hang; without one it need not wait, and ends nothing."""
    story = hooked(BOTH)
    story.reload()
    run(story)
    story.come_to_serve()
    story.exit(1)
    assert hook(story).kind is HookKind.AFTER
    story.tell(HookStarted(2, 502, 2))
    story.reload(OLD)
    assert (story.orders, story.rollout(3).state) == ([EndHook(2)], RolloutState.PREPARING)
    assert (hook(story).state, hook(story).reason) == (HookState.STOPPING, SUPERSEDED)
    story.tell(HookEnded(2, "killed by SIGTERM"))
    assert story.news["hook.failed"]["why"] == "notify was ended (superseded)"
    assert hook(story).rollout == 3
    story.tell(AbortAsked("test"))
    story.tell(HookEnded(3, "killed by SIGTERM"))
    story.fleet = replace(story.fleet, policy=Policy())
    story.reload(OLD)
    assert story.rollout(4).state is RolloutState.BOOTING


def test_what_comes_after_a_rollout_that_crashes_is_ended() -> None:
    """With the rollout: it is taken back."""
    story = hooked(AFTER)
    story.reload()
    story.come_to_serve()
    story.tell(HookStarted(1, 501, 1))
    for age in (1.0, 1.0):
        story.die(story.fleet.last_worker, age=age)
    assert story.rollout(2).state is RolloutState.ROLLED_BACK
    assert EndHook(1) in story.orders
    assert hook(story).reason == CRASHED


def test_what_comes_after_a_rollout_that_is_taken_back_by_hand_is_ended() -> None:
    """At the cut-over: a rollback may be rejected, and then it has done what it was to."""
    story = hooked(AFTER)
    story.reload()
    story.come_to_serve()
    story.tell(HookStarted(1, 501, 1))
    story.tell(RollbackAsked(OLD, "", "test"))
    assert hook(story).state is HookState.RUNNING
    story.ready(3)
    assert hook(story).state is HookState.RUNNING
    story.serve(3)
    assert EndHook(1) in story.orders
    assert hook(story).reason == ROLLED_BACK


def test_a_release_that_crashes_is_taken_back_while_the_next_is_prepared() -> None:
    """That one has no worker yet, and is superseded: its hook is ended, and the rollback waits for none."""
    story = serving(1)
    story.reload()
    story.come_to_serve()
    story.exit(1)
    story.fleet = replace(story.fleet, policy=BEFORE)
    story.reload(replace(NEW, label="three"))
    story.tell(HookStarted(1, 501, 1))
    for age in (1.0, 1.0):
        story.die(story.fleet.last_worker, age=age)
    assert story.rollout(2).state is RolloutState.ROLLED_BACK
    assert (story.rollout(3).state, story.rollout(3).reason) == (RolloutState.ABORTED, SUPERSEDED)
    assert EndHook(1) in story.orders
    assert story.rollout(4).state is RolloutState.BOOTING


def test_what_was_to_come_after_a_rollout_that_another_has_followed() -> None:
    """It is not run any more: what it was to tell of, or to warm, serves no longer."""
    story = hooked(AFTER)
    story.reload()
    story.come_to_serve()
    first = hook(story).id
    for release in (OLD, NEW):
        story.exit(*(n for n in story.fleet.workers if n < story.fleet.last_worker))
        story.reload(release)
        story.come_to_serve()
    assert [(one.rollout, one.state, one.reason) for one in story.fleet.hooks] == [
        (2, HookState.RUNNING, ""),
        (3, HookState.FAILED, SUPERSEDED),
        (4, HookState.WAITING, ""),
    ]
    story.tell(HookEnded(first, "exited 0"))
    assert story.orders == [RunHook(hook(story), NEW)]


def test_a_rollout_that_is_forgotten_while_its_hook_waits() -> None:
    """What a hook is run in is its generation's release, however many rollouts were called off since."""
    story = hooked(replace(AFTER, probation=0.0))  # workers of what serves end with those called off
    story.reload()
    story.come_to_serve()
    first = hook(story).id
    story.reload(OLD)
    story.come_to_serve()
    story.exit(1, 2)
    for _ in range(HISTORY + 2):
        story.reload(NEW)
        for serial in tuple(story.fleet.workers):
            if story.fleet.workers[serial].generation == story.fleet.last_generation:
                story.tell(AbortAsked("test"))
                story.exit(serial)
    assert story.fleet.rollout(3) is None
    story.tell(HookEnded(first, "exited 0"))
    assert story.orders == [RunHook(hook(story), OLD)]
