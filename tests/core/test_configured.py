"""What a reload that reads the configuration again puts into force, and when that ends, told as stories."""

from __future__ import annotations

from stillup.core.events import AbortAsked, Configured, Exited, ReloadAsked, TookOver, WorkerBootFailed
from stillup.core.policy import Policy
from stillup.core.rebuild import fleet_of_record
from stillup.core.setting_changes import Effect, SettingChange
from stillup.core.values import replace
from tests.core.story import NEW, OLD, Story, serving

CHANGES = (
    SettingChange("workers", Effect.APPLIED),
    SettingChange("probation", Effect.OVERRIDDEN, "--probation"),
    SettingChange("bind", Effect.NEEDS_REEXEC),
)
CONFIGURED = Configured(Policy(boot_timeout=7.0, drain_timeout=9.0), 2, CHANGES)


def reloading(configured: Configured = CONFIGURED) -> Story:
    """One worker serves, and the queue outlives the supervisor; a reload has read the configuration again."""
    story = serving(1, Policy(parks=True))
    story.tell(ReloadAsked(NEW, "test", configured=configured))
    return story


def test_it_is_in_force_from_the_reload_on() -> None:
    """Its own workers boot under it already; who keeps the queue is none of the configuration's."""
    story = reloading()
    assert story.fleet.policy == Policy(boot_timeout=7.0, drain_timeout=9.0, parks=True)
    assert (story.fleet.size, story.fleet.configured) == (2, 2)
    assert [worker.generation for worker in story.fleet.workers.values()] == [1, 2, 2]
    assert story.rollout(2).changes == CHANGES
    assert story.news["configuration.read"] == {
        "rollout": 2,
        "applied": ["workers"],
        "overridden": ["probation (--probation)"],
        "needs_reexec": ["bind"],
        "needs_restart": [],
        "file_gone": [],
    }


def test_it_ends_with_an_abort() -> None:
    """Whether the release was rejected or the rollout called off: what serves goes on as it was configured."""
    for end in (
        (WorkerBootFailed(2, "import", "no"), Exited(2, "exited 1"), Exited(3, "exited 0")),
        (AbortAsked("test"),),
    ):
        story = reloading()
        story.ready(3)
        story.tell(*end)
        assert story.fleet.policy == Policy(parks=True)
        assert (story.fleet.size, story.fleet.configured) == (1, 0)
        assert story.rollout(2).before is None


def test_a_later_reload_supersedes_it_as_a_whole() -> None:
    """What the first one had put into force is gone before the second one's is."""
    story = reloading()
    story.tell(ReloadAsked(OLD, "test", configured=Configured(Policy(probation=3.0))))
    assert (story.fleet.policy, story.fleet.size) == (Policy(probation=3.0, parks=True), 1)
    story.tell(AbortAsked("test"))
    assert story.fleet.policy == Policy(parks=True)


def test_it_stays_from_the_cut_over_on() -> None:
    """Also when the release is rolled back: that is the release's failure."""
    story = reloading()
    story.ready(2, 3)
    story.serve(2, 3)
    assert story.rollout(2).before is None
    story.exit(1)
    story.die(2, age=1.0)
    story.die(3, age=1.0)
    assert story.fleet.policy.drain_timeout == 9.0
    assert story.fleet.size == 2


def test_a_number_that_was_scaled_to_stays() -> None:
    """Where the configured one was not changed."""
    story = reloading(Configured(Policy()))
    assert "configuration.read" not in story.news
    assert (story.fleet.size, story.fleet.configured) == (1, 0)


def test_another_supervisor_goes_back_to_its_own_policy() -> None:
    """A rollout that it aborts ends what that had put into force, and not what its own start says."""
    story = reloading()
    story.fleet = fleet_of_record(story.fleet, Policy(hang_timeout=5.0))
    story.tell(TookOver(frozenset({1})))
    assert story.fleet.policy == Policy(hang_timeout=5.0)
    assert (story.fleet.size, story.fleet.configured) == (1, 0)
    story = reloading()
    story.fleet = replace(fleet_of_record(story.fleet, Policy()), size=2)
    story.tell(TookOver(frozenset({1}), 4))
    assert story.fleet.size == 4
