"""Workers that fall silent, told as stories: who hangs, who is only not heard, and what becomes of each."""

from __future__ import annotations

import pytest

from stillup.core import hang
from stillup.core.commands import BeginAccept, BeginDrain, DumpStacks, Kill, Terminate
from stillup.core.drain import uniform
from stillup.core.events import (
    ChannelLost,
    Exited,
    HeartbeatsDue,
    Reported,
    ScaleAsked,
    StopAsked,
    TookOver,
    WorkerResumed,
)
from stillup.core.policy import Policy, TimerKind
from stillup.core.states import GenerationState, WorkerState
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.core.worker_settings import WorkerSettings
from tests.core.story import BESIDE, Story, serving, spawn

LIMIT = Policy(hang_timeout=60.0)


def silence(story: Story, seconds: float, *but: int, late: bool = False) -> None:
    """Let so many seconds pass in which of all workers only these are heard; then heartbeats are due."""
    story.now += seconds
    story.tell(*(Reported(serial) for serial in but), HeartbeatsDue(story.now, late=late))


def hanging(size: int = 2) -> Story:
    """Worker 1 was found to hang, and its replacement is on its way."""
    story = serving(size, LIMIT)
    story.tell(Reported(1, WorkerFigures({"in-progress": 3})), *(Reported(serial) for serial in range(2, size + 1)))
    silence(story, 61.0, *range(2, size + 1))
    return story


def test_a_worker_that_is_silent_for_too_long_hangs() -> None:
    """It is told with its connections, its stacks are dumped, and its replacement is started; it is left as it is."""
    story = hanging()
    assert story.orders == [DumpStacks(1), spawn(3, 1, 1)]
    assert story.news == {
        "worker.hung": {"worker": "1.1", "pid": 101, "seconds": 61.0, "connections": {"in-progress": 3}}
    }
    worker = story.fleet.workers[1]
    assert (worker.state, worker.hung, worker.recycle) == (
        WorkerState.SERVING,
        60.0,
        "no word for 61 s (--hang-timeout)",
    )


def test_a_hang_is_told_once() -> None:
    """As long as it hangs, each further beat that is missed changes nothing."""
    story = hanging()
    silence(story, 1.0, 2)
    assert (story.orders, story.news) == ([], {})


def test_a_worker_that_still_hangs_is_killed_when_its_replacement_serves() -> None:
    """Only then, and at once by SIGKILL: it would not hear SIGTERM."""
    story = hanging()
    story.ready(3)
    assert story.orders == [BeginAccept(3)]
    story.serve(3)
    assert story.orders == [Kill(1)]
    assert story.news["worker.killed"] == {"worker": "1.1", "connections": {"in-progress": 3}}
    story.tell(Exited(1, "killed by SIGKILL"))
    assert (story.orders, story.news) == ([], {})
    assert story.workers() == {2: WorkerState.SERVING, 3: WorkerState.SERVING}


def test_a_worker_that_comes_back_before_that_drains_in_order() -> None:
    """A worker that is heard again hangs no longer; it is replaced all the same, without a connection lost."""
    story = hanging()
    story.now += 9.0
    story.tell(Reported(1, WorkerFigures({"idle": 3})))
    assert story.news == {"worker.recovered": {"worker": "1.1", "pid": 101, "seconds": 70.0}}
    assert story.fleet.workers[1].hung is None
    story.ready(3)
    story.serve(3)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=16)]


def test_a_worker_that_comes_back_and_hangs_again_is_killed_after_all() -> None:
    """What counts is how it is when its replacement serves; the second time is told too, and starts none."""
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
    """When the supervisor itself has slept, no worker hangs however long the silence, and all clocks start anew."""
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
    story.tell(HeartbeatsDue(read))
    assert story.news == {}


def test_a_clock_that_never_ran_starts() -> None:
    """A worker of which it is not known when it was heard last is given its whole time."""
    story = serving(1, LIMIT)
    story.fleet = story.fleet.with_worker(replace(story.fleet.workers[1], heard=None))
    silence(story, 100.0)
    assert story.news == {}
    silence(story, 61.0)
    assert "worker.hung" in story.news


@pytest.mark.parametrize(
    ("limit", "interval"), [(None, 5.0), (60.0, 5.0), (30.0, 5.0), (12.0, 2.0), (6.0, 1.0), (3.0, 1.0)]
)
def test_how_often_workers_report_comes_of_the_limit(limit: float | None, interval: float) -> None:
    """How often workers report that have nothing to tell; no more than 5 s apart, for whoever looks at them."""
    assert hang.report_interval(limit) == interval


def test_the_time_between_two_reports_is_no_silence() -> None:
    """Workers of a release keep the interval that they were told, though the limit may be shorter by now."""
    story = serving(2, Policy(hang_timeout=3.0))
    (generation,) = story.fleet.generations.values()
    settings = WorkerSettings(report_interval=5.0)
    release = replace(generation.release, settings=settings)
    story.fleet = story.fleet.with_generation(replace(generation, release=release))
    story.tell(Reported(1), Reported(2))
    silence(story, 7.0)
    assert (story.orders, story.news) == ([], {})
    silence(story, 0.1, 2)
    assert story.news["worker.hung"]["worker"] == "1.1"


def test_to_come_back_is_a_word() -> None:
    """A new supervisor does not know when workers were heard; one that comes back to it has its whole time again."""
    story = serving(2, LIMIT)
    story.tell(TookOver(frozenset({1, 2})), HeartbeatsDue(story.now, late=True))
    story.now += 60.0
    story.tell(WorkerResumed(1, draining=False))
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


def test_a_worker_that_drains_is_not_judged() -> None:
    """A worker on its way out has its drain's deadline behind it."""
    story = serving(2, LIMIT)
    story.tell(ScaleAsked(1))
    silence(story, 100.0, 1)
    assert story.news == {}


def test_a_worker_that_hangs_is_replaced_first() -> None:
    """Of those that are to be replaced the one that hangs comes first, though others have waited for longer."""
    story = serving(4, LIMIT)
    story.tell(Reported(1, recycle="old"), Reported(2, recycle="old"), Reported(3))
    assert story.orders == [spawn(5, 1, 1)]
    silence(story, 61.0, 1, 2, 3)
    assert story.orders == [DumpStacks(4)]
    story.ready(5)
    story.serve(5)
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=16), spawn(6, 1, 4)]


def test_a_worker_to_be_replaced_may_hang_too() -> None:
    """It keeps the reason that it had, and if it hangs when its replacement serves it is killed."""
    story = serving(2, LIMIT)
    story.tell(Reported(1, recycle="old"))
    silence(story, 61.0, 2)
    assert story.fleet.workers[1].recycle == "old"
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


def test_a_replacement_that_dies_leaves_a_worker_that_hangs_alone() -> None:
    """Without a replacement no worker is killed: one that hangs may still come back."""
    story = hanging()
    story.die(3, age=1.0)
    assert story.orders == [spawn(4, 1, 1)]
    assert story.workers()[1] is WorkerState.SERVING


def test_a_worker_that_hangs_may_die_by_itself() -> None:
    """Then the worker that was to replace it takes its slot as after any death."""
    story = hanging()
    story.tell(Exited(1, "killed by SIGKILL"))
    assert story.orders == []
    assert story.news["worker.died"]["why"] == "1.1 (pid 101) killed by SIGKILL"


def test_a_worker_that_hangs_when_another_generation_serves_is_killed() -> None:
    """A cut-over is a replacement, too; the others drain."""
    story = hanging()
    story.reload()
    story.ready(4, 5)
    story.serve(4, 5)
    assert story.generations() == {1: GenerationState.DRAINING, 2: GenerationState.SERVING}
    assert story.orders == [Kill(1), Terminate(3), BeginDrain(2, BESIDE, final=False, packet=16)]


def test_a_stop_gives_a_worker_that_hangs_its_time() -> None:
    """No other serves in its place: it has as long as any other to come back and finish what it holds."""
    story = hanging(1)
    story.tell(StopAsked("test"))
    assert story.orders[-2:] == [BeginDrain(1, uniform(30.0), final=True, packet=64), Terminate(2)]
    story.tell(Reported(1))
    assert story.news == {}, "who leaves anyway has no need to be back"
    story.fire(TimerKind.DRAIN, 1)
    story.fire(TimerKind.TERM, 1)
    assert story.orders == [Kill(1)]


def test_a_worker_that_hangs_and_loses_its_channel_leaves_by_its_deadlines() -> None:
    """It is on its way out already when its replacement serves."""
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
    """A worker that hangs fills its slot: a request for as many waits for no other."""
    story = serving(2, LIMIT)
    story.tell(ScaleAsked(3))
    silence(story, seconds, 1)
    story.ready(3)
    story.serve(3)
    assert story.news["scaling.done"] == {"scaling": 1, "workers": 3}
