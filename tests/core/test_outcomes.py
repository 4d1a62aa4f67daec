"""What is remembered of how things ended, and what was rolled back stays off, told as stories."""

from __future__ import annotations

import pytest

from stillup.core import probation_time
from stillup.core.events import Configured, Exited, HeartbeatsDue, RefusalNoted, ReloadAsked, RollbackAsked
from stillup.core.model import Release
from stillup.core.outcome_records import LONGEST_MESSAGE, MOST_REMEMBERED, Death, RefusedReload
from stillup.core.policy import Policy, TimerKind
from stillup.core.release import identity
from stillup.core.rollback import previous_release
from stillup.core.setting_changes import Effect, SettingChange
from stillup.core.values import replace
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import Refused, Unchanged
from tests.core.story import NEW, OLD, Story, crashed, draining, serving


def refusal(story: Story, release: Release) -> Refused:
    with pytest.raises(Refused) as caught:
        story.reload(release)
    return caught.value


def test_what_was_rolled_back_is_refused() -> None:
    """A plain reload does not bring it again: it is told why, and that --force does."""
    story = crashed()
    refused = refusal(story, NEW)
    assert refused.code == "rolled-back-before"
    assert "srv/new was rolled back before: as gen 2 its workers crashed (2 deaths)" in str(refused)
    assert "'stillup reload --force'" in str(refused)


@pytest.mark.parametrize(
    "other",
    [
        replace(NEW, fingerprint="mended"),
        replace(NEW, directory="/srv/newer", label="srv/newer"),
        replace(NEW, app="app:other"),
        replace(NEW, python="/opt/python"),
        replace(NEW, environment={"DATABASE": "another"}),
        replace(NEW, options={"loop": "asyncio"}),
        replace(NEW, settings=WorkerSettings(health_path="/healthz")),
    ],
    ids=["code", "directory", "app", "python", "environment", "option", "setting"],
)
def test_what_was_changed_is_another_release(other: Release) -> None:
    """Whatever of it was changed, it may be what was mended."""
    story = crashed()
    story.reload(other)
    assert story.fleet.pending is not None
    assert story.fleet.pending.release == other


def test_what_differs_with_each_start_makes_no_other_release() -> None:
    """A supervisor that was started anew has another invocation, and knows it all the same."""
    bad = replace(NEW, environment={"A": "\udcff", "INVOCATION_ID": "1"})
    story = crashed(bad)
    again = replace(bad, environment={"A": "\udcff", "INVOCATION_ID": "2"}, settings=WorkerSettings(orphan_timeout=9.0))
    assert refusal(story, again).code == "rolled-back-before"


def test_who_insists_gets_it_and_it_is_forgotten_once_it_serves() -> None:
    """Until then it is not: a forced reload that is rejected says nothing new of it."""
    story = crashed()
    story.tell(ReloadAsked(NEW, "test", force=True))
    assert [mark.generation for mark in story.fleet.rolled_back] == [2]
    story.ready(5)
    story.serve(5)
    assert story.fleet.rolled_back == ()
    story.reload(OLD)
    story.reload(NEW)


def test_it_is_marked_once_more_when_it_crashes_again() -> None:
    """With the generation that it crashed as last."""
    story = crashed()
    story.tell(ReloadAsked(NEW, "test", force=True))
    story.ready(5)
    story.serve(5)
    story.exit(4)
    story.die(5, age=1.0)
    story.die(6, age=1.0)
    assert [(mark.identity, mark.generation) for mark in story.fleet.rolled_back] == [(identity(NEW), 4)]
    assert "as gen 4" in str(refusal(story, NEW))


def test_only_some_marks_are_kept() -> None:
    """A service that rolls back again and again remembers the last ones."""
    story = crashed()
    for number in range(MOST_REMEMBERED + 2):
        release = replace(NEW, directory=f"/srv/{number}")
        serial = story.fleet.last_worker
        story.tell(ReloadAsked(release, "test"))
        story.ready(serial + 1)
        story.serve(serial + 1)
        story.exit(serial)
        story.die(serial + 1, age=1.0)
        story.die(serial + 2, age=1.0)
        story.ready(serial + 3)
        story.serve(serial + 3)
    assert len(story.fleet.rolled_back) == MOST_REMEMBERED
    story.reload(NEW)


def test_a_death_is_remembered() -> None:
    """Who died, how and when; none of its app's words; the last ones only."""
    story = serving(1)
    story.die(1, age=100.0)
    assert story.fleet.deaths == (Death("1.1", 101, "killed by SIGSEGV", 100.0),)
    for serial in range(2, MOST_REMEMBERED + 3):
        for timer in [timer for timer in story.timers if timer.kind is TimerKind.RESPAWN]:
            story.fire(timer.kind, timer.of, timer.slot)
            del story.timers[timer]
        story.die(serial, age=1.0)
    assert len(story.fleet.deaths) == MOST_REMEMBERED
    assert story.fleet.deaths[0].at > 100.0


def test_a_death_in_a_drain_is_remembered_and_an_end_by_order_is_not() -> None:
    """Of the two old workers one leaves as it should."""
    story = draining(2)
    story.tell(Exited(1, "exited 0"), Exited(2, "killed by SIGKILL"))
    assert [(death.worker, death.how) for death in story.fleet.deaths] == [("1.2", "killed by SIGKILL")]


def test_a_worker_that_hung_has_died() -> None:
    """It was killed once another served in its place; what it is remembered for is that it hung."""
    story = serving(1)
    story.tell(HeartbeatsDue(60.0))
    story.now = 130.0
    story.tell(HeartbeatsDue(130.0))
    story.ready(2)
    story.serve(2)
    story.tell(Exited(1, "killed by SIGKILL"))
    assert [(death.worker, death.how) for death in story.fleet.deaths] == [("1.1", "hung, and killed by SIGKILL")]


def test_a_refused_reload_is_remembered() -> None:
    """With who asked and why it was refused, cut to a length; and it is told."""
    story = serving(1)
    story.tell(RefusalNoted("SIGHUP", "release", "x" * 1000))
    assert story.fleet.refused == (RefusedReload("SIGHUP", "release", "x" * LONGEST_MESSAGE, 60.0),)
    assert story.news["reload.refused"] == {"why": "SIGHUP", "reason": "release", "message": "x" * 1000}
    for number in range(20):
        story.tell(RefusalNoted(f"{number}", "release", ""))
    assert [one.why for one in story.fleet.refused] == [f"{n}" for n in range(20 - MOST_REMEMBERED, 20)]


# Probation, as it is waited for


def test_a_probation_ends_with_its_time() -> None:
    """It begins at the cut-over."""
    story = serving(1)
    story.reload()
    assert probation_time.left(story.fleet, story.rollout(2), story.now) is None
    story.ready(2)
    story.serve(2)
    assert probation_time.left(story.fleet, story.rollout(2), story.now + 10.0) == 20.0
    assert probation_time.left(story.fleet, story.rollout(2), story.now + 30.0) is None


def test_a_probation_ends_with_what_is_on_it() -> None:
    """Another generation in its place, a crash that is rolled back, or one that cannot be."""
    story = draining(1)
    story.reload(OLD)
    story.ready(3)
    story.serve(3)
    assert probation_time.left(story.fleet, story.rollout(2), story.now) is None
    assert probation_time.left(story.fleet, story.rollout(3), story.now) == 30.0
    story = crashed()
    assert probation_time.left(story.fleet, story.rollout(2), story.now) is None


def test_without_probation_there_is_none() -> None:
    """--probation 0."""
    story = serving(1, Policy(probation=0.0))
    assert probation_time.left(story.fleet, story.rollout(1), 0.0) is None


def test_a_rollback_that_crashes_is_told_and_stays() -> None:
    """There is nothing better: it is noted, for who waits for its probation, and told once."""
    story = draining(1)
    story.exit(1)
    release = previous_release(story.fleet)
    story.tell(RollbackAsked(release, release.fingerprint, "test"))
    story.ready(3)
    story.serve(3)
    story.exit(2)
    story.die(3, age=1.0)
    assert "rollback.refused" not in story.news
    story.die(4, age=1.0)
    assert story.news["rollback.refused"]["reason"] == "rolls-back"
    assert (story.rollout(3).reason, story.rollout(3).deaths) == ("rolls-back", 2)
    assert story.fleet.pending is None


def if_changed(release: Release, *changes: SettingChange) -> ReloadAsked:
    return ReloadAsked(release, "test", configured=Configured(Policy(), None, changes), if_changed=True)


def test_only_what_is_something_else_is_brought() -> None:
    """Nothing happens for what serves, and nothing more for what is being brought; what came to nothing comes again."""
    story = serving(1)
    before = story.fleet
    with pytest.raises(Unchanged, match="srv/old serves already"):
        story.tell(if_changed(OLD))
    assert story.fleet == before
    story.tell(if_changed(NEW))
    with pytest.raises(Unchanged, match="srv/new is being brought already"):
        story.tell(if_changed(NEW))
    story.exit(2)
    assert story.fleet.pending is None
    story.tell(if_changed(NEW))
    assert story.fleet.pending is not None
    assert story.fleet.pending.release == NEW


def test_a_changed_setting_is_something_else() -> None:
    """If a reload puts it in force; one that a flag overrides changes nothing."""
    story = serving(1)
    with pytest.raises(Unchanged):
        story.tell(if_changed(OLD, SettingChange("probation", Effect.OVERRIDDEN, "--probation")))
    story.tell(if_changed(OLD, SettingChange("probation", Effect.APPLIED)))
    assert story.fleet.pending is not None
