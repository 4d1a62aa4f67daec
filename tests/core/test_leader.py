"""Which worker leads."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginDrain, BeginLeading, Kill, Spawn
from stillup.core.events import (
    AbortAsked,
    ChannelLost,
    Exited,
    LeaderLockKept,
    ReloadAsked,
    Reported,
    ScaleAsked,
    StopAsked,
    WorkerResumed,
)
from stillup.core.leader import LEAST_TERM
from stillup.core.policy import Policy, TimerKind
from stillup.core.states import RolloutState, ServiceState, WorkerState
from stillup.core.term import Term
from stillup.core.values import replace
from stillup.core.worker_figures import Leadership, WorkerFigures
from stillup.errors import Refused
from tests.core.canary_story import watched
from tests.core.rolling_story import ONE_LESS, ONE_MORE
from tests.core.story import NEW, Story, serving


def says(serial: int, *, wants: bool = True, leads: bool = False, let_go: int = 0, recycle: str = "") -> Reported:
    """What a worker reports of leading."""
    return Reported(serial, WorkerFigures(leadership=Leadership(wants, leads, let_go)), recycle)


def leading(size: int = 2, policy: Policy | None = None) -> Story:
    """All workers of generation 1 want to lead, and worker 1 was told to."""
    story = serving(size, policy)
    story.tell(*(says(serial) for serial in range(1, size + 1)))
    assert leader(story) == 1
    story.now += 10.0
    return story


def leader(story: Story) -> int | None:
    """The serial of who was told to lead, and has not let go."""
    return story.fleet.term.worker


def replaced(story: Story, *, hold: bool = True) -> None:
    """A generation of two, 3 and 4, that want to lead takes the place of the first."""
    story.reload(NEW)
    story.ready(3, 4)
    story.tell(says(3), says(4))
    assert leader(story) == 1, "who boots does not lead"
    story.serve(3, 4)
    assert leader(story) == 1, "who led has yet to let go"
    assert BeginDrain in {type(order) for order in story.orders}


def test_nobody_leads_who_does_not_want_to() -> None:
    story = serving()
    story.tell(says(1, wants=False), says(2, wants=False))
    assert leader(story) is None
    assert not [order for order in story.orders if isinstance(order, BeginLeading)]


def test_the_first_that_wants_to_is_told() -> None:
    """Once; and an event says so."""
    story = serving()
    story.tell(says(2))
    assert story.orders == [BeginLeading(2, 1)]
    assert story.news["leader.told"] == {"worker": "1.2", "pid": 102, "term": 1}
    story.tell(says(1), says(2, leads=True))
    assert story.orders == []
    assert story.fleet.term == Term(1, 2, began=60.0)


def test_the_next_is_told_when_it_has_let_go() -> None:
    """At a cut-over, of the generation that serves now; the lowest slot first."""
    story = leading()
    replaced(story)
    story.tell(says(1, leads=True))
    assert story.orders == []
    story.tell(says(1, wants=False, let_go=1))
    assert story.orders == [BeginLeading(3, 2)]
    assert "leader.told" in story.news


def test_the_next_is_told_when_it_has_ended() -> None:
    story = leading()
    story.tell(Exited(1, "killed by SIGKILL"))
    assert [order for order in story.orders if isinstance(order, BeginLeading)] == [BeginLeading(2, 2)]


def test_one_that_does_not_let_go_is_killed() -> None:
    """When its time is over, though its drain has time left."""
    story = leading()
    replaced(story)
    story.fire(TimerKind.LEADER, 1)
    assert story.orders == [Kill(1)]
    assert story.news["leader.killed"] == {"worker": "1.1", "pid": 101, "seconds": 10.0}
    story.tell(says(1, leads=True))
    assert story.orders == [], "once"
    story.exit(1)
    assert story.orders == [BeginLeading(3, 2)]


def test_nobody_is_killed_for_nothing() -> None:
    """Who does not let go is killed once another could lead: here the worker that replaces it, a while later."""
    story = leading(1)
    story.reload(NEW)
    story.ready(2)
    story.serve(2)
    story.fire(TimerKind.LEADER, 1)
    assert story.orders == []
    story.tell(says(2))
    assert story.orders == [Kill(1)]


def test_a_stop_kills_no_leader() -> None:
    """It has the time of the stop; and nobody is told to lead any more."""
    story = leading(policy=Policy(stop_timeout=100.0))
    story.tell(ScaleAsked(1), StopAsked("test"))
    story.now += 50.0
    story.tell(says(1, leads=True), says(2, leads=True))
    assert story.orders == []
    story.tell(says(1, let_go=1))
    story.exit(1, 2)
    assert story.state() is ServiceState.STOPPED
    assert [order for order in story.orders if isinstance(order, BeginLeading)] == []


def test_a_stop_that_was_announced_leaves_somebody_leading() -> None:
    """All is served on until it begins."""
    story = leading(policy=Policy(stop_delay=15.0))
    story.tell(StopAsked("test"), Exited(1, "killed by SIGKILL"))
    assert leader(story) == 2


def test_one_that_is_to_be_replaced_is_not_told() -> None:
    """One that leads goes on until it is told to leave."""
    story = leading(3)
    story.tell(says(1, leads=True, recycle="old"), says(2, recycle="old"))
    assert leader(story) == 1
    story.tell(Exited(1, "killed by SIGKILL"))
    assert leader(story) == 3


def test_who_lets_go_unasked_makes_room() -> None:
    """Others come first, and nothing is announced: an app may do that all the time."""
    story = leading()
    story.tell(says(1, let_go=1))
    assert story.orders == [BeginLeading(2, 2)]
    assert story.news == {}
    story.now += 10.0
    story.tell(says(2, let_go=2))
    assert story.orders == [BeginLeading(1, 3)]


def test_terms_are_a_second_apart() -> None:
    """Whoever lets go again and again is told again a second after it was told before; a timer sees to that."""
    story = serving(1)
    story.tell(says(1), says(1, let_go=1))
    assert story.orders == [BeginLeading(1, 1)]
    story.now += LEAST_TERM / 2
    story.tell(says(1, let_go=1))
    assert story.orders == []
    story.fire(TimerKind.LEADER, 0)
    assert story.orders == [BeginLeading(1, 2)]
    assert story.now == 60.0 + LEAST_TERM


def test_a_liar_leads_no_more() -> None:
    """Who says that it has let go of what it was not told is not told."""
    story = serving()
    story.tell(says(1, let_go=7), says(2))
    assert leader(story) == 2
    story.tell(Exited(2, "killed by SIGKILL"))
    assert leader(story) is None


def test_whoever_says_that_it_leads_is_not_believed() -> None:
    story = leading()
    story.tell(says(2, leads=True, let_go=1))
    assert leader(story) == 1
    story.tell(says(1, let_go=1))
    assert leader(story) == 2, "what it said of another's term is nothing"


def test_one_that_was_cut_off_has_to_let_go() -> None:
    """It drains when it comes back; until then it may lead."""
    story = leading()
    story.tell(ChannelLost(1, "garbage"))
    assert leader(story) == 1
    story.fire(TimerKind.LEADER, 1)
    assert story.orders == [Kill(1)]


def test_it_is_told_again_when_it_comes_back() -> None:
    """Of the same term, with the lock of the supervisor that there is now; others are not."""
    story = leading()
    story.tell(WorkerResumed(2, draining=False))
    assert story.orders == []
    story.tell(WorkerResumed(1, draining=False))
    assert story.orders == [BeginLeading(1, 1)]


def test_one_that_leads_on_no_record_goes_on() -> None:
    """Nobody else was told to: it leads, in a term of its own, and is given the lock that there is now."""
    story = leading()
    story.tell(says(1, wants=False, let_go=1), says(2, wants=False, let_go=2))
    story.now += 10.0
    story.tell(WorkerResumed(2, draining=False, leads=True))
    assert (leader(story), story.fleet.term.number) == (2, 3)
    assert story.orders == [BeginLeading(2, 3)]


def test_one_that_leads_beside_another_leaves() -> None:
    """Two were told by supervisors that did not know of each other: one of them drains, and is replaced."""
    story = leading()
    story.tell(WorkerResumed(2, draining=False, leads=True))
    assert leader(story) == 1
    assert [type(order) for order in story.orders] == [BeginDrain, Spawn]
    assert story.workers()[2] is WorkerState.DRAINING


def test_a_liar_that_comes_back_is_not_believed() -> None:
    """Nor is one that has let go of what it is to be told."""
    story = serving()
    story.tell(says(1, let_go=7), WorkerResumed(1, draining=False, leads=True))
    assert leader(story) is None
    assert story.workers()[1] is WorkerState.DRAINING


def test_another_supervisor_goes_on() -> None:
    """Who leads by the record does, and nobody else is told until it has let go, or has died with its supervisor."""
    story = leading()
    story.take_over(1, 2)
    story.tell(says(2))
    assert (leader(story), story.orders) == (1, [])
    story.take_over(2)
    assert leader(story) == 2


def test_another_supervisor_gives_it_the_whole_time_to_let_go() -> None:
    """All clocks start anew."""
    story = leading()
    replaced(story)
    story.now += 9.0
    story.take_over(1, 2, 3, 4)
    story.tell(says(3))
    story.now += 9.0
    story.tell(says(1, leads=True))
    assert story.orders == []
    story.fire(TimerKind.LEADER, 1)
    assert story.orders == [Kill(1)]


def test_another_supervisor_waits_as_well() -> None:
    """The second between two terms outlives the supervisor."""
    story = serving(1)
    story.tell(says(1), says(1, let_go=1))
    story.take_over(1)
    story.tell(says(1, let_go=1))
    assert story.orders == []
    story.fire(TimerKind.LEADER, 0)
    assert story.orders == [BeginLeading(1, 2)]


def test_one_that_keeps_the_lock_is_killed() -> None:
    """By the kernel's word, though it serves: it has let go by its own. Its end is a death."""
    story = leading()
    story.tell(says(1, let_go=1), LeaderLockKept(101))
    assert story.orders == [BeginLeading(2, 2), Kill(1)]
    assert story.news["leader.killed"] == {"worker": "1.1", "pid": 101, "seconds": None}
    with pytest.raises(Refused, match="may have"):
        story.tell(LeaderLockKept(101))
    story.exit(1)
    assert "1.1 (pid 101)" in str(story.news["worker.died"]["why"])


@pytest.mark.parametrize("pid", [102, 999], ids=["leads", "unknown"])
def test_who_may_have_the_lock_is_not_killed(pid: int) -> None:
    story = leading()
    story.tell(says(1, let_go=1))
    with pytest.raises(Refused, match="may have"):
        story.tell(LeaderLockKept(pid))


def test_who_is_killed_already_is_not_again() -> None:
    """A leader that was killed for its time has ended when another is told."""
    story = leading()
    replaced(story)
    story.fire(TimerKind.LEADER, 1)
    assert story.workers()[1] is WorkerState.KILLED
    story.tell(says(3))
    assert story.orders == []


def test_a_rollback_passes_it_on_as_any_rollout_does() -> None:
    story = leading()
    replaced(story)
    story.tell(says(1, wants=False, let_go=1))
    story.exit(1, 2)
    story.now += 100.0
    story.tell(ReloadAsked(replace(NEW, label="again"), "test"))
    story.ready(5, 6)
    story.tell(says(5))
    story.serve(5, 6)
    story.tell(says(3, wants=False, let_go=2))
    assert leader(story) == 5


def test_who_is_ready_says_so_first() -> None:
    """A worker that boots in the generation that serves is no candidate before it serves."""
    story = serving(1)
    story.tell(Exited(1, "killed by SIGKILL"))
    story.ready(2)
    story.tell(says(2))
    assert leader(story) is None
    story.serve(2)
    assert leader(story) == 2


def test_the_new_ones_lead_for_want_of_old_ones() -> None:
    """In a rolling rollout the old generation leads until the cut-over, as long as one of it is left that could."""
    story = leading(2, Policy(strategy=ONE_LESS))
    story.reload()
    story.exit(2)
    story.ready(3)
    story.tell(says(3))
    story.serve(3)
    assert leader(story) == 1, "it has yet to let go"
    story.exit(1)
    assert leader(story) == 3, "the other new one has yet to boot"
    story.ready(4)
    story.tell(says(4))
    story.serve(4)
    assert (leader(story), story.fleet.serving is not None) == (3, True)


def test_an_old_one_leads_before_a_new_one() -> None:
    """Who leads dies in mid-plan: another one that serves in the generation before takes its place."""
    story = leading(3, Policy(strategy=ONE_MORE))
    story.reload()
    story.ready(4)
    story.tell(says(4))
    story.serve(4)
    story.exit(3)
    story.tell(Exited(1, "killed by SIGKILL"))
    assert leader(story) == 2


def test_somebody_leads_soon_after_a_start_whose_first_leader_has_ended() -> None:
    """It led by its own word while nothing served yet: its end is the time from which the next term is waited for."""
    story = Story(2)
    story.reload()
    story.ready(1, 2)
    story.tell(WorkerResumed(2, draining=False, leads=True))
    story.reload()
    story.exit(2)
    story.ready(3, 4)
    story.tell(says(3), says(4))
    story.serve(3, 4)
    assert leader(story) is None, "a second has not passed since the last term began"
    story.fire(TimerKind.LEADER, 0)
    assert leader(story) == 3


def test_a_canary_that_has_failed_does_not_lead() -> None:
    """Nor would it while it was watched: who leads next is of those that come back."""
    story = watched(1)
    story.tell(says(2))
    story.die(1, age=100.0)
    story.tell(AbortAsked("test"))
    assert story.rollout(2).state is RolloutState.GOING_BACK
    assert leader(story) is None
    story.ready(3)
    story.serve(3)
    story.tell(says(3))
    assert leader(story) == 3
