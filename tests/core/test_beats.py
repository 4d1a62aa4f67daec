"""Workers that fall silent, told as stories: who hangs, who is only not heard, and what becomes of each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.commands import Accept, BeginDrain, DumpStacks, Kill, Terminate
from supervisor.core.events import (
    BeatsDue,
    ChannelLost,
    Exited,
    Reported,
    Resumed,
    ScaleAsked,
    StopAsked,
    TimerKind,
    TookOver,
)
from supervisor.core.model import GenerationState, Policy, WorkerState
from tests.core.telling import Story, serving, spawn

LIMIT = Policy(hang_timeout=60.0)


def silence(story: Story, seconds: float, *but: int, late: bool = False) -> None:
    """Let so many seconds pass in which of all workers only these are heard; then their beats are due."""
    story.now += seconds
    story.tell(*(Reported(serial) for serial in but), BeatsDue(story.now, late=late))


def hanging(size: int = 2) -> Story:
    """Worker 1 was found to hang, and its heir is on its way."""
    story = serving(size, LIMIT)
    story.tell(Reported(1, {"in-progress": 3}), *(Reported(serial) for serial in range(2, size + 1)))
    silence(story, 61.0, *range(2, size + 1))
    return story


def test_who_is_silent_for_too_long_hangs() -> None:
    """It is told with what it holds, where it stands is dumped, and its heir is started; it is left as it is."""
    story = hanging()
    assert story.orders == [DumpStacks(1), spawn(3, 1, 1)]
    assert story.news == {
        "worker.hung": {"worker": "1.1", "pid": 101, "seconds": 61.0, "connections": {"in-progress": 3}}
    }
    worker = story.fleet.workers[1]
    assert (worker.state, worker.hung, worker.worn) == (WorkerState.SERVING, 60.0, "no word for 61 s (--hang-timeout)")


def test_who_hangs_is_told_once() -> None:
    """As long as it hangs, each further beat that is missed changes nothing."""
    story = hanging()
    silence(story, 1.0, 2)
    assert (story.orders, story.news) == ([], {})


def test_who_still_hangs_is_killed_when_its_heir_serves() -> None:
    """Only then, and at once: SIGTERM would be one more word to somebody who hears none."""
    story = hanging()
    story.ready(3)
    assert story.orders == [Accept(3)]
    story.serve(3)
    assert story.orders == [Kill(1)]
    assert story.news["worker.killed"] == {"worker": "1.1", "connections": {"in-progress": 3}}
    story.tell(Exited(1, "killed by SIGKILL"))
    assert (story.orders, story.news) == ([], {})
    assert story.workers() == {2: WorkerState.SERVING, 3: WorkerState.SERVING}


def test_who_comes_back_before_that_drains_in_order() -> None:
    """A worker that is heard again hangs no longer; it is replaced all the same, without a connection lost."""
    story = hanging()
    story.now += 9.0
    story.tell(Reported(1, {"idle": 3}))
    assert story.news == {"worker.recovered": {"worker": "1.1", "pid": 101, "seconds": 70.0}}
    assert story.fleet.workers[1].hung is None
    story.ready(3)
    story.serve(3)
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=16)]


def test_who_comes_back_and_hangs_again_is_killed_after_all() -> None:
    """What counts is how it is when its heir serves; the second time is told like the first, with no second heir."""
    story = hanging()
    story.tell(Reported(1))
    silence(story, 61.0, 2)
    assert story.orders == [DumpStacks(1)]
    assert story.news["worker.hung"]["seconds"] == 61.0
    story.ready(3)
    story.serve(3)
    assert story.orders == [Kill(1)]


def test_a_beat_in_time_is_enough() -> None:
    """A worker at its limit does not hang; one that was heard a moment ago has its whole time again."""
    story = serving(1, LIMIT)
    story.tell(Reported(1))
    silence(story, 60.0)
    assert (story.orders, story.news) == ([], {})
    silence(story, 1.0, 1)
    silence(story, 59.0)
    assert (story.orders, story.news) == ([], {})


def test_the_clock_starts_when_a_worker_serves() -> None:
    """Serving is a word, too: a worker that has just taken over is not silent since its birth."""
    story = serving(1, LIMIT)
    story.die(1, age=60.0)
    story.ready(2)
    story.now += 100.0
    story.serve(2)
    silence(story, 60.0)
    assert story.news == {}
    silence(story, 1.0)
    assert "worker.hung" in story.news


def test_a_late_look_judges_nobody() -> None:
    """When the supervisor itself has slept, nobody hangs however long the silence, and all clocks start anew."""
    story = serving(2, LIMIT)
    silence(story, 500.0, late=True)
    assert (story.orders, story.news) == ([], {})
    silence(story, 60.0)
    assert story.news == {}
    silence(story, 1.0)
    assert "worker.hung" in story.news


def test_a_silence_ends_when_the_channels_were_read() -> None:
    """Time that passes between the reading and the verdict is the supervisor's own."""
    story = serving(1, LIMIT)
    story.tell(Reported(1))
    read = story.now + 1.0
    story.now += 500.0
    story.tell(BeatsDue(read))
    assert story.news == {}


def test_a_clock_that_never_ran_starts() -> None:
    """A worker of which nobody knows when it was heard last is given its whole time."""
    story = serving(1, LIMIT)
    story.fleet = story.fleet.with_worker(replace(story.fleet.workers[1], heard=None))
    silence(story, 100.0)
    assert story.news == {}
    silence(story, 61.0)
    assert "worker.hung" in story.news


def test_to_come_back_is_a_word() -> None:
    """A new supervisor knows of nobody when it was heard; a worker that comes back to it has its whole time again."""
    story = serving(2, LIMIT)
    story.tell(TookOver(frozenset({1, 2})), BeatsDue(story.now, late=True))
    story.now += 60.0
    story.tell(Resumed(1, draining=False))
    silence(story, 60.0)
    assert story.fleet.workers[1].hung is None
    assert story.news["worker.hung"]["worker"] == "1.2", "the other has not come back"


def test_without_a_limit_nobody_hangs() -> None:
    """--hang-timeout 0: however long the silence."""
    story = serving(1, Policy(hang_timeout=None))
    silence(story, 1e6)
    assert (story.orders, story.news) == ([], {})


def test_while_nothing_serves_nobody_hangs() -> None:
    """A generation on its way into service has deadlines of its own, and so has a worker on its way."""
    story = Story(1, LIMIT)
    silence(story, 100.0)
    story.reload()
    story.ready(1)
    silence(story, 100.0)
    assert story.news == {}
    story = serving(1, LIMIT)
    story.die(1, age=60.0)
    story.ready(2)
    silence(story, 100.0)
    assert (story.workers()[2], story.news) == (WorkerState.ACCEPTING, {})


def test_who_drains_is_not_judged() -> None:
    """A worker on its way out has its drain's deadline behind it."""
    story = serving(2, LIMIT)
    story.tell(ScaleAsked(1))
    silence(story, 100.0, 1)
    assert story.news == {}


def test_who_hangs_goes_before_who_is_worn() -> None:
    """Of those that wait for their turn the one that hangs comes first, though others have been worn for longer."""
    story = serving(4, LIMIT)
    story.tell(Reported(1, worn="old"), Reported(2, worn="old"), Reported(3))
    assert story.orders == [spawn(5, 1, 1)]
    silence(story, 61.0, 1, 2, 3)
    assert story.orders == [DumpStacks(4)]
    story.ready(5)
    story.serve(5)
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=16), spawn(6, 1, 4)]


def test_who_is_worn_may_hang_too() -> None:
    """It keeps the reason that it had, and if it hangs when its heir serves it is killed."""
    story = serving(2, LIMIT)
    story.tell(Reported(1, worn="old"))
    silence(story, 61.0, 2)
    assert story.fleet.workers[1].worn == "old"
    story.ready(3)
    story.serve(3)
    assert story.orders == [Kill(1)]


def test_all_that_hang_are_replaced_one_at_a_time() -> None:
    """What holds up all of them at once is rarely cured by starting as many at once."""
    story = serving(3, LIMIT)
    silence(story, 121.0)
    assert story.orders == [DumpStacks(1), DumpStacks(2), DumpStacks(3), spawn(4, 1, 1)]
    story.ready(4)
    story.serve(4)
    assert story.orders == [Kill(1), spawn(5, 1, 2)]


def test_an_heir_that_dies_leaves_who_hangs_alone() -> None:
    """Without a replacement nobody is killed: who hangs may still come back, and the dead do not."""
    story = hanging()
    story.die(3, age=1.0)
    assert story.orders == [spawn(4, 1, 1)]
    assert story.workers()[1] is WorkerState.SERVING


def test_who_hangs_may_die_by_itself() -> None:
    """Then its heir is its replacement."""
    story = hanging()
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.orders == []
    assert story.news["worker.died"]["why"] == "1.1 (pid 101) killed by SIGKILL"


def test_who_hangs_when_another_generation_serves_is_killed() -> None:
    """A cut-over is a replacement, too; the others drain."""
    story = hanging()
    story.reload()
    story.ready(4, 5)
    story.serve(4, 5)
    assert story.generations() == {1: GenerationState.DRAINING, 2: GenerationState.SERVING}
    assert story.orders == [Kill(1), Terminate(3), BeginDrain(2, 30.0, final=False, packet=16)]


def test_a_stop_gives_who_hangs_its_time() -> None:
    """Nobody serves in its place: it has as long as any other to come back and finish what it holds."""
    story = hanging(1)
    story.tell(StopAsked("test"))
    assert story.orders[-2:] == [BeginDrain(1, 30.0, final=True, packet=64), Terminate(2)]
    story.tell(Reported(1))
    assert story.news == {}, "who leaves anyway has no need to be back"
    story.fire(TimerKind.DRAIN, 1)
    story.fire(TimerKind.TERM, 1)
    assert story.orders == [Kill(1)]


def test_who_hangs_and_loses_its_channel_leaves_by_its_deadlines() -> None:
    """It is on its way out already when its heir serves."""
    story = hanging(1)
    story.tell(ChannelLost(1, "garbage"))
    story.ready(2)
    story.serve(2)
    assert story.orders == []
    story.fire(TimerKind.DRAIN, 1)
    story.fire(TimerKind.TERM, 1)
    assert story.orders == [Kill(1)]


@pytest.mark.parametrize("seconds", [61.0, 600.0])
def test_a_scaling_is_settled_by_those_that_hang(seconds: float) -> None:
    """A worker that hangs fills its slot: whoever asked for as many waits for no one."""
    story = serving(2, LIMIT)
    story.tell(ScaleAsked(3))
    silence(story, seconds, 1)
    story.ready(3)
    story.serve(3)
    assert story.news["scaling.done"] == {"scaling": 1, "workers": 3}
