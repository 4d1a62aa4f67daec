"""Canary rollouts: what comes, what is watched, and what happens meanwhile."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain, DumpStacks, GiveShare, Kill, TellAdoption, Terminate
from stillup.core.events import (
    AbortAsked,
    HeartbeatsDue,
    PromoteAsked,
    ReexecAsked,
    Reported,
    RollbackAsked,
    ScaleAsked,
)
from stillup.core.policy import Policy, TimerKind
from stillup.core.states import GenerationState, RolloutState, ScalingState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.core.watch import Verdict, WatchReason
from stillup.core.worker_figures import Leadership
from stillup.errors import Refused
from tests.core.canary_story import NEW, OLD, ONE, canary, counts, intervals, look, report, state, watch, watched
from tests.core.rolling_story import drain, take_over
from tests.core.story import NEW as NEW_RELEASE
from tests.core.story import OLD as OLD_RELEASE
from tests.core.story import Story, serving, spawn

BY_HALVES = replace(ONE, canary=50, canary_percent=True)
THEN_ROLLING = replace(ONE, rolls=True)


def news_of_abort(story: Story) -> tuple[object, object]:
    return story.news["rollout.aborted"]["reason"], story.news["rollout.aborted"]["why"]


# It comes, and is watched


def test_only_the_canary_comes() -> None:
    """One worker is started beside the four, and accepts as soon as it is READY."""
    story = canary()
    assert story.orders == [spawn(5, 2, 1, NEW_RELEASE)]
    assert state(story) is RolloutState.BOOTING
    story.ready(5)
    assert story.orders == [BeginAccept(5)]
    assert state(story) is RolloutState.SHIFTING


def test_the_watch_begins_when_the_canary_serves() -> None:
    """The old ones leave the adoption queue to it, and each gives it its share of the idle connections."""
    story = watched()
    assert story.orders == [*(TellAdoption(n, on=False) for n in OLD), *(GiveShare(n, 0.2) for n in OLD)]
    assert story.news["canary.watching"] == {"rollout": 2, "generation": 2, "workers": 1, "of": 4, "seconds": 60.0}
    assert (watch(story).until, watch(story).expires, watch(story).workers) == (120.0, 180.0, 1)


def test_a_canary_of_several() -> None:
    """Half of five, rounded up, are three; the watch begins with the last of them."""
    story = canary(5, BY_HALVES)
    assert [worker.slot for worker in story.fleet.of(2)] == [1, 2, 3]
    story.ready(6, 7, 8)
    story.serve(6, 7)
    assert state(story) is RolloutState.SHIFTING
    story.serve(8)
    assert state(story) is RolloutState.WATCHING
    assert GiveShare(1, 3 / 8) in story.orders


def test_there_has_to_be_room_for_the_canary() -> None:
    """No more than N + C live: a worker that is left of an older generation is waited for."""
    story = serving(1, Policy(strategy=ONE))
    story.tell(Reported(1, recycle="old"))
    story.reload()
    assert state(story) is RolloutState.WAITING
    story.ready(2)
    story.serve(2)
    story.exit(1)
    assert state(story) is RolloutState.BOOTING


# It is passed


def test_a_good_one_is_passed_when_its_time_is_over() -> None:
    """Then the rest comes beside the old ones, which leave together, when all serve."""
    story = watched()
    intervals(story, 5, counts(100))
    assert state(story) is RolloutState.WATCHING
    intervals(story, 1, counts(100))
    assert (state(story), watch(story).verdict) == (RolloutState.SHIFTING, Verdict.PASS)
    assert story.news["canary.passed"]["why"] == "5xx 0.0 % (old 0.0 %), p99 5 ms (5 ms)".replace("(5 ms", "(old 5 ms")
    assert story.orders == [spawn(n, 2, n - 4, NEW_RELEASE) for n in (6, 7, 8)]
    story.ready(6, 7, 8)
    story.serve(6, 7)
    assert story.orders == []
    story.serve(8)
    assert story.orders == [drain(n, packet=16) for n in OLD]
    story.exit(*OLD)
    assert state(story) is RolloutState.DONE


def test_a_canary_of_all() -> None:
    """A single worker's canary is its whole generation: it cuts over when it is passed, and not before."""
    story = watched(1)
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.SHIFTING}
    for _ in range(6):
        report(story, (1, 2), counts(100))
        look(story)
    assert story.orders == [drain(1)]
    assert state(story) is RolloutState.DRAINING


def test_the_rest_may_come_rolling() -> None:
    """With K = 1 an old one leaves for each that serves, from the canary on."""
    story = watched(strategy=THEN_ROLLING)
    intervals(story, 6, counts(100))
    assert story.orders == [drain(4, packet=64)]
    story.exit(4)
    assert story.orders == [spawn(6, 2, 2, NEW_RELEASE)]


def test_it_is_not_judged_without_a_gate() -> None:
    """Only its time is waited for, be there requests or not, and whatever they come to."""
    story = watched(strategy=replace(ONE, gated=False))
    intervals(story, 6, counts(100, errors=50))
    assert (state(story), watch(story).verdict) == (RolloutState.SHIFTING, Verdict.UNGATED)
    assert story.news["canary.passed"]["why"] == "not judged"


def test_somebody_promotes_it() -> None:
    """At once, be it held or not; twice is refused."""
    story = watched()
    story.tell(PromoteAsked("uid 0"))
    assert story.news["canary.promoted"] == {"rollout": 2, "generation": 2, "why": "uid 0"}
    assert (state(story), watch(story).verdict) == (RolloutState.SHIFTING, Verdict.PROMOTED)
    assert len(story.orders) == 3
    with pytest.raises(Refused, match="no canary is watched: there is nothing to promote"):
        story.tell(PromoteAsked("uid 0"))


@pytest.mark.parametrize("seconds", [0.0, 45.0])
def test_it_dies(seconds: float) -> None:
    """As before any cut-over."""
    story = watched()
    story.now += seconds
    story.die(5, age=story.now - story.fleet.workers[5].spawned)
    assert news_of_abort(story)[0] == "exit"
    assert (state(story), watch(story).verdict) == (RolloutState.ABORTED, None)
    assert story.generations() == {1: GenerationState.SERVING}


def test_it_hangs() -> None:
    """Nothing is heard of it for too long, while the others are heard; it would not hear an order, and is killed."""
    story = watched(strategy=replace(ONE, canary_time=100.0))
    story.now += 61.0
    report(story, OLD, counts(100))
    story.tell(HeartbeatsDue(story.now))
    assert news_of_abort(story) == ("hang", "2.1 (pid 105) hangs")
    assert Kill(5) in story.orders


# What else happens meanwhile


def test_somebody_calls_it_off() -> None:
    """What is new leaves; the old ones never left."""
    story = watched()
    story.tell(AbortAsked("test"))
    assert news_of_abort(story) == ("called-off", "")
    assert drain(5, packet=16) in story.orders
    assert state(story) is RolloutState.ABORTED


def test_a_second_reload() -> None:
    """The first one is superseded and goes back; the second begins when its worker has left."""
    story = watched()
    story.reload(replace(NEW_RELEASE, directory="/srv/newer"))
    assert (state(story), state(story, 3)) == (RolloutState.ABORTED, RolloutState.WAITING)
    story.exit(5)
    assert state(story, 3) is RolloutState.BOOTING


def test_an_old_worker_dies() -> None:
    """It is replaced by its like, beside the canary, whose watch goes on."""
    story = watched()
    story.die(4, age=100.0)
    assert story.orders[-1] == spawn(6, 1, 4, OLD_RELEASE)
    story.ready(6)
    story.serve(6)
    assert state(story) is RolloutState.WATCHING
    assert not any(isinstance(order, BeginDrain) for order in story.orders)
    # What it counts, it has counted since the interval began; what the dead one had is not known.
    report(story, (1, 2, 3, 5, 6), counts(100))
    story.fire(TimerKind.GATE, 2)
    assert watch(story).comparison is not None
    assert watch(story).old.requests == 400


def test_an_old_worker_hangs() -> None:
    """There is no room for its replacement beside it: it is killed, and replaced."""
    story = watched(strategy=replace(ONE, canary_time=200.0, canary_timeout=200.0))
    story.now += 61.0
    report(story, (1, 2, 3, 5), counts(100))
    story.tell(HeartbeatsDue(story.now))
    assert story.orders[-1] == Kill(4)
    story.exit(4)
    assert story.orders == [spawn(6, 1, 4, OLD_RELEASE)]


def test_a_worker_hangs_that_was_replaced() -> None:
    """Where one has died there is room: another one is started for who hangs, which is killed when that serves."""
    story = watched(strategy=replace(ONE, canary_time=200.0, canary_timeout=200.0))
    story.fleet = replace(story.fleet, policy=replace(story.fleet.policy, hang_timeout=5.0))
    story.tell(ScaleAsked(5))
    story.ready(6)
    story.now += 6.0
    report(story, (1, 2, 3, 5), counts(100))
    story.tell(HeartbeatsDue(story.now))
    assert story.orders == [DumpStacks(4)]  # worker 6 makes no room, but is on its way
    story.die(6, age=1.0)
    assert story.orders[-1] == spawn(7, 1, 4, OLD_RELEASE)
    story.ready(7)
    story.serve(7)
    assert Kill(4) in story.orders


def test_it_is_scaled() -> None:
    """Both sides have as many as are wanted now; the request is done when the old one has."""
    story = watched(2, BY_HALVES)
    story.tell(ScaleAsked(4))
    assert story.orders == [spawn(4, 1, 3, OLD_RELEASE), spawn(5, 1, 4, OLD_RELEASE), spawn(6, 2, 2, NEW_RELEASE)]
    story.ready(4, 5, 6)
    story.serve(4, 5, 6)
    scaling = story.fleet.scaling(1)
    assert scaling is not None
    assert scaling.state is ScalingState.DONE
    story.tell(ScaleAsked(2))
    assert sorted(order.serial for order in story.orders if isinstance(order, BeginDrain)) == [4, 5, 6]
    assert state(story) is RolloutState.WATCHING


def test_those_that_are_too_many_leave_only_if_they_can_be_spared() -> None:
    """With fewer wanted, one of the others that has just died comes back first."""
    story = watched(3)
    story.die(1, age=100.0)
    story.tell(ScaleAsked(2))
    assert not any(isinstance(order, BeginDrain) for order in story.orders)
    story.ready(5)
    story.serve(5)
    assert drain(3, packet=64) in story.orders


def test_who_comes_and_is_not_wanted_any_more_leaves() -> None:
    """It has not accepted: it is ended."""
    story = watched(2)
    story.tell(ScaleAsked(3))
    story.tell(ScaleAsked(2))
    assert Terminate(4) in story.orders


def test_one_that_is_to_be_replaced_waits_for_its_end() -> None:
    """There is no room for another, and it serves."""
    story = watched()
    story.tell(Reported(1, recycle="old"))
    assert story.orders == []


def test_nobody_of_a_canary_leads() -> None:
    """Though it is the only one that wants to; once it is passed and nobody else can, it does."""
    story = watched(strategy=replace(ONE, gated=False))
    figures = replace(story.fleet.workers[5].figures, leadership=Leadership(wants=True))
    story.tell(Reported(5, figures))
    assert story.fleet.term.worker is None
    story.tell(PromoteAsked("test"))
    assert story.fleet.term.worker == 5


def test_a_rollback_is_not_tried() -> None:
    """What comes back has served before: it comes by the same way, without a watch."""
    for rolls, kind in ((False, StrategyKind.BLUE_GREEN), (True, StrategyKind.ROLLING)):
        story = watched(strategy=replace(ONE, rolls=rolls))
        story.tell(PromoteAsked("test"))
        for _ in range(20):
            story.come_to_serve()
            story.exit(*[n for n, now in story.workers().items() if now is WorkerState.DRAINING])
        assert state(story) is RolloutState.DONE
        story.tell(RollbackAsked(OLD_RELEASE, OLD_RELEASE.fingerprint, "test"))
        assert story.rollout(3).strategy == Strategy(kind)


def test_a_death_after_it_was_passed() -> None:
    """Before the cut-over that sends it back: the old ones are all there."""
    story = watched()
    story.tell(PromoteAsked("test"))
    story.ready(6)
    story.serve(6)
    story.die(6, age=1.0)
    assert news_of_abort(story)[0] == "exit"
    assert (state(story), watch(story).verdict) == (RolloutState.ABORTED, Verdict.PROMOTED)
    assert drain(5, packet=16) in story.orders


def test_the_way_back_with_an_old_worker_missing() -> None:
    """It takes no more room than the way forth: one of the old is started, and the new one serves until that does."""
    story = watched()
    story.die(4, age=100.0)
    story.tell(AbortAsked("test"))
    assert state(story) is RolloutState.GOING_BACK
    assert not any(isinstance(order, BeginDrain) for order in story.orders)
    story.ready(6)
    story.serve(6)
    assert drain(5, packet=16) in story.orders
    assert state(story) is RolloutState.ABORTED


def test_the_way_back_after_some_have_left() -> None:
    """A canary that was passed goes on as a rolling one, and so it goes back."""
    story = watched(2, THEN_ROLLING)
    story.tell(PromoteAsked("test"))
    story.exit(2)
    story.tell(AbortAsked("test"))
    assert state(story) is RolloutState.GOING_BACK
    story.exit(4)
    assert story.orders == [spawn(5, 1, 2, OLD_RELEASE)]


# Another supervisor comes


def test_a_take_over_in_the_watch() -> None:
    """It goes on where it was: what was counted and suspected is known; who has not spoken yet is left out."""
    story = watched()
    intervals(story, 1, counts(100, errors=10))
    report(story, (5,), counts(50, errors=5))
    take_over(story, *OLD, *NEW)
    assert state(story) is RolloutState.WATCHING
    assert watch(story).suspected == (WatchReason.ERRORS,)
    # Each says all that it has counted in its life.
    report(story, OLD, counts(200))
    look(story)
    assert watch(story).comparison is not None
    assert watch(story).new.requests == 100
    report(story, (5,), counts(250, errors=25))
    report(story, OLD, counts(100))
    look(story)
    assert news_of_abort(story) == ("gate", "5xx 10.0 % (old 0.0 %)")


def test_a_take_over_before_the_watch() -> None:
    """What old workers had counted before it began is none of the watch's, though nobody could say how much."""
    story = canary()
    story.ready(5)
    take_over(story, *OLD, *NEW)
    story.serve(5)
    for serial in OLD:
        report(story, (serial,), counts(10_000))
    assert state(story) is RolloutState.WATCHING
    report(story, NEW, counts(100))
    look(story)
    report(story, (*OLD, *NEW), counts(100))
    look(story)
    assert watch(story).old.requests == 400


def test_a_take_over_without_the_canary() -> None:
    """It says nothing of the release how it has ended: another one comes, and the watch goes on."""
    story = watched()
    take_over(story, *OLD)
    assert state(story) is RolloutState.WATCHING
    assert story.orders[-1] == spawn(6, 2, 1, NEW_RELEASE)


def test_a_take_over_after_its_time() -> None:
    """However long nobody looked, both sides have an interval to say what they have counted."""
    story = watched()
    story.now += 1000.0
    take_over(story, *OLD, *NEW)
    report(story, (*OLD, *NEW), counts(500))
    look(story)
    assert watch(story).verdict is Verdict.PASS


def test_the_program_may_be_replaced_in_the_watch() -> None:
    """Nothing is on its way."""
    story = watched()
    story.tell(ReexecAsked())
    assert "supervisor.reexec" in story.news
