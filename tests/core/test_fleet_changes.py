"""What is counted of a fleet as it becomes another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from stillup.core.events import Event, Exited, HeartbeatsDue, Reported, ScaleAsked, WorkerBootFailed
from stillup.core.fleet_changes import NO_CHANGES, Phase
from stillup.core.fleet_comparison import changes_between, have_counted
from stillup.core.policy import Policy
from stillup.core.states import RolloutState
from stillup.core.worker_figures import WorkerFigures
from tests.core.story import OLD, SAID, Story


class Counted(Story):
    """A story, each step of which is counted."""

    def __init__(self, size: int = 1, policy: Policy | None = None) -> None:
        super().__init__(size, policy)
        self.counts: dict[str, int] = {}
        """What is not zero."""
        self.phases: list[tuple[Phase, float]] = []

    def tell(self, *events: Event) -> None:
        for event in events:
            before = self.fleet
            super().tell(event)
            changes = changes_between(before, self.fleet)
            assert (changes == NO_CHANGES) == (changes == changes_between(self.fleet, self.fleet))
            for name in (field.name for field in fields(changes) if field.name != "phases"):
                if count := getattr(changes, name):
                    self.counts[name] = self.counts.get(name, 0) + count
            self.phases += changes.phases


def serving(size: int = 2, policy: Policy | None = None) -> Counted:
    """Generation 1 serves with workers 1 to ``size``."""
    story = Counted(size, policy)
    story.reload(OLD)
    story.come_to_serve()
    assert story.counts == {"succeeded": 1}
    return story


def test_a_rollout() -> None:
    """It is counted once, at its cut-over, and each of its phases when it is over."""
    story = serving(1)
    story.phases.clear()
    story.now = 10.0
    story.reload()
    story.now = 11.5
    story.ready(2)
    story.now = 11.75
    story.serve(2)
    assert story.phases == [(Phase.WAITING, 0.0), (Phase.BOOTING, 1.5), (Phase.CUTTING_OVER, 0.25)]
    story.now = 15.75
    story.exit(1)
    assert story.phases[3:] == [(Phase.DRAINING, 4.0)]
    assert story.counts == {"succeeded": 2}


def test_a_rollout_that_fails() -> None:
    """It is counted as aborted and its worker as dead; only the phases that it came through are timed."""
    story = serving(1)
    story.phases.clear()
    story.reload()
    story.tell(WorkerBootFailed(2, "import", "no"), Exited(2, "exited 1"))
    assert story.counts == {"succeeded": 1, "aborted": 1, "deaths": 1}
    assert story.phases == [(Phase.WAITING, 0.0)]


def test_a_release_that_crashes() -> None:
    """Its rollout has succeeded and was rolled back, which are two things; the cure succeeds as well."""
    story = serving(2)
    story.reload()
    story.come_to_serve()
    story.exit(1, 2)
    story.die(3, age=1.0)
    story.die(4, age=1.0)
    assert story.counts == {"succeeded": 2, "rolled_back": 1, "deaths": 2, "respawns": 2}
    assert story.rollout(2).state is RolloutState.ROLLED_BACK
    story.come_to_serve()
    assert story.counts["succeeded"] == 3


def test_respawns() -> None:
    """A worker that takes the place of one that died is one; one that comes on top, or with a release, is not."""
    story = serving(1)
    story.die(1, age=90.0)
    assert story.counts == {"succeeded": 1, "deaths": 1, "respawns": 1}
    story.come_to_serve()
    story.tell(ScaleAsked(2))
    story.come_to_serve()
    story.reload()
    story.come_to_serve()
    assert story.counts == {"succeeded": 2, "deaths": 1, "respawns": 1}


def test_a_worker_that_leaves_in_order_has_not_died() -> None:
    """Workers that have drained end without being counted."""
    story = serving(2)
    story.reload()
    story.come_to_serve()
    story.exit(1, 2)
    assert story.counts == {"succeeded": 2}


def test_a_hang_is_counted() -> None:
    """It is counted when it is found, and the replacement is a respawn."""
    story = serving(1, Policy(hang_timeout=60.0))
    story.now += 61.0
    story.tell(HeartbeatsDue(story.now))
    story.now += 1.0
    story.tell(HeartbeatsDue(story.now))
    assert story.counts == {"succeeded": 1, "hung": 1, "respawns": 1}


@given(st.lists(st.tuples(st.integers(0, len(SAID) - 1), st.integers(0, 4)), max_size=60))
def test_every_rollout_has_one_outcome(happenings: list[tuple[int, int]]) -> None:
    """Whatever happens, as many rollouts are counted as have succeeded or been aborted."""
    story = Counted(2)
    story.live(happenings)
    settled = story.fleet.last_rollout - (story.fleet.pending is not None)
    assert story.counts.get("succeeded", 0) + story.counts.get("aborted", 0) == settled


def test_what_workers_tell() -> None:
    """One that has served somebody has counted; one that says the same again, or comes, has not."""
    story = serving()
    for requests, counted in ((1, True), (1, False), (2, True)):
        before = story.fleet
        story.tell(Reported(2, WorkerFigures(requests=requests)))
        assert have_counted(before, story.fleet) is counted
    before = story.fleet
    story.reload()
    assert not have_counted(before, story.fleet)
    assert len(story.fleet.workers) > len(before.workers)
