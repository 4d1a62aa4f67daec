"""More and fewer workers, told as stories: what is started, who leaves, and what becomes of the request."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain, Exit, Spawn, Terminate
from stillup.core.events import (
    ChannelLost,
    Exited,
    Reported,
    ScaleAsked,
    Spawned,
    SpawnFailed,
    StopAsked,
    WorkerBootFailed,
)
from stillup.core.model import Failure, Scaling
from stillup.core.policy import MOST_WORKERS, Policy, TimerKind
from stillup.core.states import ScalingState
from stillup.core.values import replace
from stillup.errors import Refused
from tests.core.story import BESIDE, OLD, Story, begin, draining, serving, spawn


def test_more_workers_are_started_at_once() -> None:
    """Scaled up, the generation that serves gets its new slots filled, and the next generation has as many."""
    story = serving(size=1)
    story.tell(ScaleAsked(3))
    assert story.orders == [spawn(2, 1, 2), spawn(3, 1, 3)]
    assert story.news == {"service.scaled": {"generation": 1, "workers": 3}}
    story.ready(2)
    assert story.orders == [BeginAccept(2)]
    story.serve(2)
    assert story.news == {"worker.serving": {"worker": "1.2", "pid": 102}}
    story.reload()
    assert [order.slot for order in story.orders if isinstance(order, Spawn)] == [1, 2, 3]


def test_fewer_workers_drain_from_the_last_slot() -> None:
    """Scaled down, the workers beyond the wanted number drain or, if they serve no client yet, are ended."""
    story = serving(size=3)
    story.exit(3)
    assert story.orders == [spawn(4, 1, 3)]
    story.tell(ScaleAsked(1))
    assert story.orders == [BeginDrain(2, BESIDE, final=False, packet=64), Terminate(4)]
    story.exit(2, 4)
    assert (story.orders, story.news) == ([], {})
    assert set(story.fleet.workers) == {1}


def test_a_slot_that_waits_is_dropped_with_its_number() -> None:
    """Scaled down, a slot that waits for its next start is forgotten; scaled up again, it is filled at once."""
    story = serving(size=2)
    story.exit(2)
    story.tell(SpawnFailed(3, "no memory"))
    assert story.waiting() == {2: 2}
    story.tell(ScaleAsked(1))
    assert story.waiting() == {}
    with pytest.raises(Refused, match=r"no vacancy 1\.2"):
        story.fire(TimerKind.RESPAWN, 1, slot=2)
    story.tell(ScaleAsked(2))
    assert story.orders == [spawn(4, 1, 2)]


def test_a_slot_that_waits_goes_on_waiting_when_others_are_added() -> None:
    """Scaled up or down, a slot that stays goes on waiting: only new ones are filled, no back-off is cut short."""
    story = serving(size=1)
    story.exit(1)
    story.tell(SpawnFailed(2, "no memory"))
    story.tell(ScaleAsked(2))
    assert story.orders == [spawn(3, 1, 2)]
    assert story.waiting() == {1: 2}
    story.tell(ScaleAsked(1))
    assert story.orders == [Terminate(3)]
    assert story.waiting() == {1: 2}


def test_no_workers_at_all_is_refused() -> None:
    """To have no workers is to stop, and the refusal says so."""
    story = serving()
    with pytest.raises(Refused, match="at least 1 worker; 'stillup stop' ends it") as caught:
        story.tell(ScaleAsked(0))
    assert caught.value.code == "usage"


@pytest.mark.parametrize("first", [True, False])
def test_a_rollout_is_not_scaled(first: bool) -> None:
    """While a generation is on its way the number of workers stays as it is."""
    story = begin() if first else serving()
    if not first:
        story.reload()
    says = "gen 1 is before its cut-over$" if first else "gen 2 is before its cut-over; 'stillup abort' calls it off"
    with pytest.raises(Refused, match=says) as caught:
        story.tell(ScaleAsked(3))
    assert caught.value.code == "rollout-in-progress"
    assert story.fleet.size == 2


def test_what_a_scaling_beside_a_drain_waits_for_is_said() -> None:
    """A reload that waits for older generations comes first: the refusal names both."""
    story = draining(1)
    story.reload(OLD)
    story.ready(3)
    story.serve(3)
    story.reload()
    says = "reload 4 comes first, and waits until one of gen 1, 2 has left; 'stillup abort' calls it off"
    with pytest.raises(Refused, match=says):
        story.tell(ScaleAsked(3))


def test_what_does_not_serve_is_not_scaled() -> None:
    """Where no first generation could start there is nothing to scale."""
    never = begin(size=1, policy=Policy(keep_trying=True))
    never.tell(SpawnFailed(1, "no memory"))
    with pytest.raises(Refused, match="the service is starting, and nothing serves") as refusal:
        never.tell(ScaleAsked(3))
    assert refusal.value.code == "rollout-in-progress"


@pytest.mark.parametrize("asked", [ScaleAsked(3), ScaleAsked(1), ScaleAsked(1, relative=True)])
def test_a_service_that_ends_is_not_scaled(asked: ScaleAsked) -> None:
    """Nor one that serves until the delay of its stop is over: the new workers would be ended as soon as they serve."""
    for policy in (Policy(), Policy(stop_delay=10.0)):
        story = serving(policy=policy)
        story.tell(StopAsked("test"))
        with pytest.raises(Refused, match="the service is stopping; start it again") as refusal:
            story.tell(asked)
        assert refusal.value.code == "stopping"


def test_too_many_workers_are_refused() -> None:
    """A number that no machine bears is refused before one process is started for it."""
    story = serving()
    with pytest.raises(Refused, match="1001 workers are too many: 1000 are the most") as caught:
        story.tell(ScaleAsked(MOST_WORKERS + 1))
    assert caught.value.code == "usage"


# What becomes of the request


def under_way(size: int = 1, wanted: int = 3) -> Story:
    """A service that has just been asked for more workers than it has."""
    story = serving(size)
    story.tell(ScaleAsked(wanted))
    return story


def scaling(story: Story, number: int = 1) -> Scaling:
    found = story.fleet.scaling(number)
    assert found is not None
    return found


def test_more_workers_are_there_when_each_serves() -> None:
    """The request is done with the word of the last new worker that it serves, and with none before."""
    story = under_way()
    asked = Scaling(1, ScalingState.UNDER_WAY, generation=1, size=3, previous=1, asked=60.0, last_worker=1)
    assert scaling(story) == asked
    story.now = 61.0
    story.ready(2, 3)
    story.serve(3)
    assert scaling(story) == asked
    story.serve(2)
    assert list(story.news) == ["worker.serving", "scaling.done"]
    assert story.news["scaling.done"] == {"scaling": 1, "workers": 3}
    assert scaling(story) == replace(asked, state=ScalingState.DONE, ended=61.0)


def test_fewer_workers_are_there_at_once() -> None:
    """A worker beyond the wanted number takes nothing new from now on: the request does not wait for its drain."""
    story = serving(3)
    story.tell(ScaleAsked(1))
    assert list(story.news) == ["service.scaled", "scaling.done"]
    assert scaling(story).state is ScalingState.DONE


def test_as_many_as_there_are_is_done_at_once() -> None:
    """To ask for what is there is no mistake."""
    story = serving(2)
    story.tell(ScaleAsked(2))
    assert story.orders == []
    assert scaling(story).state is ScalingState.DONE


def test_fewer_workers_that_do_not_serve_yet_are_waited_for() -> None:
    """When a slot that stays is empty, to have fewer is done only when it is filled."""
    story = serving(2)
    story.die(1, age=90.0)
    story.tell(ScaleAsked(1))
    assert scaling(story).state is ScalingState.UNDER_WAY
    story.ready(3)
    story.serve(3)
    assert scaling(story).state is ScalingState.DONE


def test_a_new_worker_that_fails_ends_the_request() -> None:
    """The failure is kept with its last words; as many workers are still wanted, and the slot is tried again."""
    story = under_way()
    story.tell(Spawned(2, 102), WorkerBootFailed(2, "import", "no module named app"))
    assert scaling(story).state is ScalingState.UNDER_WAY
    story.tell(Exited(2, "exited 1", "Traceback"))
    assert story.orders == [spawn(4, 1, 2)]
    assert list(story.news) == ["worker.died", "scaling.aborted"]
    assert story.news["scaling.aborted"] == {"scaling": 1, "workers": 3, "reason": "import"}
    failure = Failure("import", "no module named app", "1.2", 102, "Traceback")
    ended = scaling(story)
    assert (ended.state, ended.reason, ended.failure, ended.ended) == (
        ScalingState.ABORTED,
        "import",
        failure,
        60.0,
    )
    assert story.fleet.size == 3


def test_a_worker_that_comes_to_serve_after_all_changes_no_outcome() -> None:
    """A request that was aborted stays so."""
    story = under_way(wanted=2)
    story.tell(SpawnFailed(2, "no memory"))
    story.ready(3)
    story.serve(3)
    assert list(story.news) == ["worker.serving"]
    assert scaling(story).state is ScalingState.ABORTED


def test_a_new_worker_that_serves_and_dies_ends_the_request() -> None:
    """What was started for the request and is gone before it was done has failed it, whatever it had reached."""
    story = under_way()
    story.ready(2)
    story.serve(2)
    story.tell(Exited(2, "killed by SIGSEGV"))
    assert scaling(story).reason == "exit"


def test_an_older_worker_that_dies_is_waited_for() -> None:
    """A worker that was there before is replaced; what becomes of its replacement decides."""
    for fails in (False, True):
        story = under_way(wanted=2)
        story.ready(2)
        story.die(1, age=70.0)
        story.serve(2)
        assert scaling(story).state is ScalingState.UNDER_WAY
        story.ready(3)
        if fails:
            story.tell(Exited(3, "exited 1"))
            assert scaling(story).state is ScalingState.ABORTED
        else:
            story.serve(3)
            assert scaling(story).state is ScalingState.DONE


def test_a_slot_that_waited_for_its_time_is_waited_for() -> None:
    """A slot that was in its back-off when the request came gets its worker in time, and that one decides."""
    story = serving(1)
    story.die(1, age=90.0)
    story.die(2, age=1.0)
    story.tell(ScaleAsked(1))
    story.fire(TimerKind.RESPAWN, 1, slot=1)
    assert scaling(story).state is ScalingState.UNDER_WAY
    story.ready(3)
    story.serve(3)
    assert scaling(story).state is ScalingState.DONE


def test_a_replacement_that_dies_does_not_fail_the_request() -> None:
    """While the worker that was to be replaced serves, its slot is served."""
    story = under_way(wanted=2)
    story.tell(Reported(1, recycle="old"), Exited(3, "exited 1"))
    assert scaling(story).state is ScalingState.UNDER_WAY
    story.ready(2)
    story.serve(2)
    assert scaling(story).state is ScalingState.DONE


def test_a_new_worker_that_breaks_the_protocol_is_waited_for() -> None:
    """One that can be told nothing drains and is replaced at once: when it has gone, its slot is served."""
    story = under_way()
    story.ready(2)
    story.serve(2)
    story.tell(ChannelLost(2, "garbage"))
    story.ready(4)
    story.serve(4)
    story.exit(2)
    assert scaling(story).state is ScalingState.UNDER_WAY
    story.ready(3)
    story.serve(3)
    assert scaling(story).state is ScalingState.DONE


def test_a_later_request_supersedes_the_one_before() -> None:
    """The earlier one is settled as superseded, and the later one has an outcome of its own."""
    story = under_way()
    story.now = 61.0
    story.tell(ScaleAsked(2))
    assert story.orders == [Terminate(3)]
    assert story.news["scaling.aborted"] == {"scaling": 1, "workers": 3, "reason": "superseded"}
    assert (scaling(story).state, scaling(story).ended) == (ScalingState.ABORTED, 61.0)
    later = scaling(story, 2)
    assert (later.state, later.previous, later.last_worker) == (ScalingState.UNDER_WAY, 3, 3)
    story.ready(2)
    story.serve(2)
    assert scaling(story, 2).state is ScalingState.DONE
    assert scaling(story).reason == "superseded"


def test_a_refused_request_leaves_the_one_before() -> None:
    """What cannot be had supersedes nothing."""
    story = under_way()
    with pytest.raises(Refused):
        story.tell(ScaleAsked(0))
    assert scaling(story).state is ScalingState.UNDER_WAY
    assert story.fleet.last_scaling == 1


def test_a_stop_ends_the_request() -> None:
    """A stop that overtakes it is its outcome, even where no worker is left to wait for."""
    story = under_way()
    story.tell(StopAsked("SIGTERM"))
    assert scaling(story).reason == "stopping"
    empty = serving(1)
    empty.die(1, age=90.0)
    empty.die(2, age=1.0)
    empty.tell(ScaleAsked(2), ScaleAsked(1))
    empty.exit(3)
    empty.tell(StopAsked("SIGTERM"))
    assert scaling(empty, 2).reason == "stopping"
    assert empty.orders[-1] == Exit(0)


def test_a_rollout_does_not_end_the_request() -> None:
    """A reload that comes in between brings a generation of the size wanted, and its cut-over is the outcome."""
    story = under_way(wanted=2)
    story.reload()
    story.ready(3, 4)
    story.serve(3, 4)
    assert scaling(story).state is ScalingState.DONE


def test_a_rejected_release_does_not_end_the_request() -> None:
    """The workers of a generation that never served are none of its own."""
    story = under_way(wanted=2)
    story.reload()
    story.tell(SpawnFailed(3, "no memory"))
    assert scaling(story).state is ScalingState.UNDER_WAY
