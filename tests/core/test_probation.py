"""Releases that crash soon after they were put into service, told as stories: which are taken back, and which not."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginDrain, HurryDrain, Spawn, Terminate
from stillup.core.events import (
    ChannelLost,
    Exited,
    ReloadAsked,
    Reported,
    RollbackAsked,
    ScaleAsked,
    SpawnFailed,
    TookOver,
    WorkerBootFailed,
)
from stillup.core.model import HISTORY, Failure, Release
from stillup.core.policy import Policy
from stillup.core.states import GenerationState, RolloutState
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from tests.core.story import BESIDE, NEW, OLD, Story, serving, spawn

NEWER = replace(NEW, directory="/srv/newer", label="srv/newer")


def deployed(size: int = 2, policy: Policy | None = None, release: Release = NEW, *, left: bool = True) -> Story:
    """Generation 2 has taken over from generation 1 at second 60; its workers follow those of generation 1."""
    story = serving(size, policy)
    roll_out(story, size + 1, release)
    if left:
        story.exit(*range(1, size + 1))
    return story


def roll_out(story: Story, first: int, release: Release) -> None:
    workers = range(first, first + story.fleet.size)
    story.reload(release)
    story.ready(*workers)
    story.serve(*workers)


def crash(story: Story, serial: int) -> None:
    story.tell(Exited(serial, "killed by SIGSEGV", "core dumped"))


@pytest.mark.parametrize("left", [False, True])
def test_a_release_that_crashes_is_taken_back(left: bool) -> None:
    """As many deaths as workers: the release before is rolled out, and the log tells it in this order."""
    story = deployed(left=left)
    assert story.rollout(2).state is (RolloutState.DONE if left else RolloutState.DRAINING)
    story.now += 3.0
    crash(story, 3)
    assert story.orders == [spawn(5, 2, 1, NEW)]
    story.now += 2.0
    crash(story, 4)
    assert story.orders == [spawn(7, 3, 1, OLD), spawn(8, 3, 2, OLD), spawn(6, 2, 2, NEW)]
    assert list(story.news) == ["worker.died", "rollout.rolled-back", "rollout.begun"]
    assert story.news["rollout.rolled-back"] == {
        "rollout": 2,
        "generation": 2,
        "release": "srv/old",
        "deaths": 2,
        "seconds": 5.0,
    }
    why = "gen 2 crashed: 2 deaths within 5 s"
    assert story.news["rollout.begun"] == {"rollout": 3, "generation": 3, "why": why, "release": "srv/old"}
    bad, cure = story.rollout(2), story.rollout(3)
    assert (bad.state, bad.reason, bad.ended) == (RolloutState.ROLLED_BACK, "crashed", 65.0)
    assert bad.failure == Failure("exit", "killed by SIGSEGV", "2.2", 104, "core dumped")
    assert (cure.release, cure.replaced, cure.rolls_back, cure.previous) == (OLD, NEW, 2, 2)


def test_what_crashes_serves_until_what_was_before_it_does() -> None:
    """A rollback is a rollout: at its cut-over what crashes drains, and those on the way to it are ended."""
    story = deployed()
    crash(story, 3)
    crash(story, 4)
    story.ready(5)
    story.serve(5)
    story.ready(7, 8)
    story.serve(7, 8)
    assert story.orders == [BeginDrain(5, BESIDE, final=False, packet=16), Terminate(6)]
    assert story.generations() == {2: GenerationState.DRAINING, 3: GenerationState.SERVING}
    story.exit(5, 6)
    assert story.rollout(3).state is RolloutState.DONE
    assert story.rollout(2).state is RolloutState.ROLLED_BACK


def test_what_the_old_generation_gives_away_is_kept() -> None:
    """A rollout that was rolled back while its predecessor drained still tells what that one gave away."""
    story = deployed(left=False)
    crash(story, 3)
    crash(story, 4)
    crossed = replace(story.fleet.workers[1].figures.crossed, given=7)
    story.tell(Reported(1, WorkerFigures(crossed=crossed)), Exited(1, "exited 0"), Exited(2, "exited 0"))
    assert (story.rollout(2).state, story.rollout(2).crossed.given) == (RolloutState.ROLLED_BACK, 7)


def test_one_death_is_no_crash_loop() -> None:
    """A service of one worker is rolled back for two deaths, not for one."""
    story = deployed(1)
    crash(story, 2)
    assert story.orders == [spawn(3, 2, 1, NEW)]
    assert (story.rollout(2).state, story.rollout(2).deaths) == (RolloutState.DONE, 1)
    crash(story, 3)
    assert story.rollout(2).state is RolloutState.ROLLED_BACK


def test_a_large_generation_may_lose_some() -> None:
    """Of four workers three may die."""
    story = deployed(4)
    for serial in (5, 6, 7):
        crash(story, serial)
    assert story.rollout(2).state is RolloutState.DONE
    crash(story, 8)
    assert story.rollout(2).state is RolloutState.ROLLED_BACK


@pytest.mark.parametrize("probation", [30.0, 0.0])
def test_after_its_probation_a_release_stays(probation: float) -> None:
    """Later deaths are anything, and with --probation 0 all of them are later."""
    story = deployed(policy=Policy(probation=probation))
    crash(story, 3)
    story.now += probation
    crash(story, 4)
    assert "rollout.rolled-back" not in story.news
    assert story.rollout(2).state is RolloutState.DONE


def test_a_first_release_has_nothing_to_go_back_to() -> None:
    """The first generation that serves stays, whatever it does."""
    story = serving()
    story.now = 1.0
    crash(story, 1)
    crash(story, 2)
    assert story.orders == [spawn(4, 1, 2)]
    assert story.rollout(1).state is RolloutState.DONE


def test_a_release_changed_in_place_stays() -> None:
    """A release that replaced its equal would only be started again: that is told, once, and the back-off goes on."""
    story = deployed(release=OLD)
    crash(story, 3)
    crash(story, 4)
    assert story.orders == [spawn(6, 2, 2)]
    assert story.news["rollback.refused"] == {
        "rollout": 2,
        "generation": 2,
        "release": "srv/old",
        "reason": "release-overwritten",
    }
    crash(story, 5)
    assert "rollback.refused" not in story.news
    assert "worker.waits" in story.news
    assert (story.rollout(2).state, story.rollout(2).reason) == (RolloutState.DONE, "release-overwritten")


def test_a_rollback_is_not_rolled_back() -> None:
    """Of two releases that both crash, none is better."""
    story = deployed()
    crash(story, 3)
    crash(story, 4)
    story.ready(7, 8)
    story.serve(7, 8)
    crash(story, 7)
    crash(story, 8)
    assert [order.release for order in story.orders if isinstance(order, Spawn)] == [OLD]
    assert story.rollout(3).state is RolloutState.DRAINING
    assert story.fleet.last_rollout == 3


def test_a_rollback_that_fails_is_not_tried_again() -> None:
    """If the release before does not boot any more, what crashes is what there is."""
    story = deployed()
    crash(story, 3)
    crash(story, 4)
    story.tell(SpawnFailed(7, "no such file"))
    assert story.rollout(3).state is RolloutState.ABORTED
    crash(story, 5)
    assert (story.fleet.last_rollout, story.generations()[2]) == (3, GenerationState.SERVING)


def test_what_is_on_its_way_is_the_cure() -> None:
    """While a newer release boots nothing is taken back; if that one fails, the next death is one too many."""
    story = deployed()
    story.reload(NEWER)
    crash(story, 3)
    crash(story, 4)
    assert story.rollout(2).state is RolloutState.DONE
    story.tell(WorkerBootFailed(5, "import", "no"), Exited(5, "exited 1"))
    assert story.rollout(3).state is RolloutState.ABORTED
    crash(story, 7)
    assert story.rollout(2).state is RolloutState.ROLLED_BACK
    assert story.rollout(4).release == OLD


def test_a_rollback_waits_like_any_rollout() -> None:
    """If too many generations drain it waits for one to leave, and all that they hold is ended: this one crashes."""
    story = deployed(policy=Policy(max_draining=1), left=False)
    crash(story, 3)
    crash(story, 4)
    assert list(story.news) == ["worker.died", "rollout.rolled-back", "rollout.waiting"]
    assert [order for order in story.orders if isinstance(order, HurryDrain)] == [
        HurryDrain(1, every=True),
        HurryDrain(2, every=True),
    ]
    story.exit(1, 2)
    assert story.news["rollout.begun"]["release"] == "srv/old"


def test_what_only_waits_is_no_cure() -> None:
    """A reload that has not begun, and may wait as long as streams last, gives way to the rollback."""
    story = deployed(policy=Policy(max_draining=1), left=False)
    story.reload(NEWER)
    assert story.rollout(3).state is RolloutState.WAITING
    crash(story, 3)
    crash(story, 4)
    assert story.rollout(2).state is RolloutState.ROLLED_BACK
    assert (story.rollout(3).state, story.rollout(3).reason) == (RolloutState.ABORTED, "superseded")
    assert (story.rollout(4).release, story.rollout(4).rolls_back) == (OLD, 2)
    assert HurryDrain(1, every=True) in story.orders


def test_a_rollback_that_was_asked_for_is_the_cure_although_it_waits() -> None:
    """It goes where the other would, or further back; and it waits for nothing that has no end, either."""
    story = deployed(policy=Policy(max_draining=1), left=False)
    story.tell(RollbackAsked(OLD, OLD.fingerprint, "test"))
    assert HurryDrain(1, every=True) in story.orders
    crash(story, 3)
    crash(story, 4)
    assert (story.rollout(2).state, story.rollout(3).state) == (RolloutState.DRAINING, RolloutState.WAITING)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param([ScaleAsked(1), Exited(4, "exited 1")], id="scaled down"),
        pytest.param([SpawnFailed(5, "no memory")], id="not started"),
    ],
)
def test_what_is_no_fault_of_the_release_is_not_counted(end: list[ScaleAsked | Exited | SpawnFailed]) -> None:
    """A worker that was told to leave may leave as it likes, and one that could not be started has run nothing."""
    story = deployed()
    crash(story, 3)
    story.tell(*end)
    assert (story.rollout(2).state, story.rollout(2).deaths) == (RolloutState.DONE, 1)


def test_a_lost_channel_is_a_death() -> None:
    """So is a replacement that does not come to serve."""
    story = deployed()
    story.tell(ChannelLost(3, "garbage"), Exited(3, "exited 0"))
    assert story.rollout(2).deaths == 1
    story.tell(WorkerBootFailed(5, "import", "no"), Exited(5, "exited 1"))
    assert story.rollout(2).state is RolloutState.ROLLED_BACK


def test_a_death_that_was_not_seen_is_not_counted() -> None:
    """Workers that ended while no supervisor ran may have left in order; those that die after that count again."""
    story = deployed()
    crash(story, 3)
    story.ready(5)
    story.serve(5)
    story.tell(TookOver(frozenset({5})))
    assert story.news["service.taken-over"]["died"] == 1
    assert (story.rollout(2).state, story.rollout(2).deaths) == (RolloutState.DONE, 1)
    crash(story, 5)
    assert story.rollout(2).state is RolloutState.ROLLED_BACK


def test_what_differs_at_each_start_is_no_difference() -> None:
    """A release is its predecessor's equal if only variables differ that are new at each start of a supervisor."""
    story = deployed(release=replace(OLD, environment={"INVOCATION_ID": "2"}))
    crash(story, 3)
    crash(story, 4)
    assert "rollback.refused" in story.news


def test_a_rollout_that_was_forgotten_is_not_taken_back() -> None:
    """Of one that lies so many failed reloads back nothing is known."""
    story = deployed(1)
    for _ in range(HISTORY + 1):
        story.tell(ReloadAsked(NEWER, "test"))
        story.tell(SpawnFailed(story.fleet.last_worker, "no"))
    assert story.fleet.rollout(2) is None
    crash(story, 2)
    crash(story, story.fleet.last_worker)
    assert "rollout.rolled-back" not in story.news
