"""Rollouts, told as stories: one generation takes over from another, or does not."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginAccept, BeginDrain, CloseListeners, EndPreload, Exit, Spawn, Terminate
from stillup.core.drain import ClassTimeouts, uniform
from stillup.core.events import (
    AbortAsked,
    BecameReady,
    ChannelLost,
    Event,
    Exited,
    HelloSaid,
    Reported,
    Spawned,
    SpawnFailed,
    TimerFired,
    WorkerBootFailed,
)
from stillup.core.model import HISTORY, Failure, Rollout
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import GenerationState, RolloutState, ServiceState
from stillup.core.values import replace
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import Refused
from tests.core.story import BESIDE, NEW, OLD, Story, begin, serving, spawn

# The first generation


def test_the_first_boot_begins_with_every_worker() -> None:
    """The first request starts every worker of generation 1 at once, each with a deadline for READY."""
    story = begin(policy=Policy(boot_timeout=40.0, drain_timeout=20.0))
    assert story.orders == [Spawn(1, 1, 1, OLD, 40.0, 20.0), Spawn(2, 1, 2, OLD, 40.0, 20.0)]
    assert story.timers == {Timer(TimerKind.BOOT, 1): 40.0, Timer(TimerKind.BOOT, 2): 40.0}
    assert story.news == {
        "rollout.begun": {"rollout": 1, "generation": 1, "why": "test", "release": "srv/old"},
    }
    assert story.rollout(1) == Rollout(1, RolloutState.BOOTING, OLD, "test", asked=0.0, generation=1, begun=0.0)
    assert story.state() is ServiceState.STARTING


def test_nobody_accepts_before_all_are_ready() -> None:
    """A READY worker waits for the others; with the last one all are told to accept, each with a deadline."""
    story = Story(2)
    story.reload(replace(OLD, settings=WorkerSettings(health_path="/")))
    story.ready(2)
    assert story.orders == []
    story.now = 3.0
    story.ready(1)
    assert story.orders == [BeginAccept(1), BeginAccept(2)]
    assert story.timers[Timer(TimerKind.ADMIT, 1)] == story.timers[Timer(TimerKind.ADMIT, 2)] == 13.0
    assert story.generations() == {1: GenerationState.ADMITTING}
    rollout = story.rollout(1)
    assert (rollout.state, rollout.ready, rollout.probe) == (RolloutState.CUTTING_OVER, 3.0, "/ 200")


def test_the_service_serves_when_all_workers_do() -> None:
    """The cut-over comes with the last worker's word that it accepts; before the first generation none is to drain."""
    story = begin()
    story.ready(1, 2)
    story.serve(1)
    assert (story.orders, story.state()) == ([], ServiceState.STARTING)
    story.now = 4.0
    story.serve(2)
    assert story.orders == []
    assert list(story.news) == ["rollout.cut-over", "rollout.done"]
    assert story.news["rollout.cut-over"] == {"rollout": 1, "generation": 1, "previous": None}
    assert story.news["rollout.done"] == {"rollout": 1, "generation": 1}
    assert story.state() is ServiceState.SERVING
    assert story.generations() == {1: GenerationState.SERVING}
    rollout = story.rollout(1)
    assert (rollout.state, rollout.cut, rollout.ended) == (RolloutState.DONE, 4.0, 4.0)


def test_a_first_generation_that_fails_ends_the_supervisor() -> None:
    """When the first generation cannot start, the supervisor leaves with 1 once its last worker has gone."""
    story = begin()
    story.ready(2)
    story.tell(
        Spawned(1, 101), HelloSaid(1), WorkerBootFailed(1, "import", "no module"), Exited(1, "exited 1", "Traceback")
    )
    assert story.orders == [Terminate(1), CloseListeners(), Terminate(2)]
    assert story.news["service.stopping"] == {"why": "generation 1 could not start"}
    assert story.state() is ServiceState.STOPPING
    story.exit(2)
    assert story.orders == [Exit(1)]
    assert story.news["service.stopped"] == {"code": 1}
    assert story.state() is ServiceState.STOPPED


def test_a_first_generation_that_fails_alone_ends_the_supervisor_at_once() -> None:
    """With one worker, its end is the generation's and the supervisor's."""
    story = begin(size=1)
    story.tell(SpawnFailed(1, "no memory"))
    assert story.orders == [CloseListeners(), Exit(1)]


def test_a_supervisor_that_keeps_trying_waits_for_the_next_reload() -> None:
    """With hot reload a first generation that fails leaves the supervisor starting, and the next one may serve."""
    story = begin(size=1, policy=Policy(keep_trying=True))
    story.tell(Spawned(1, 101), Exited(1, "exited 1"))
    assert story.orders == []
    assert (story.state(), story.generations()) == (ServiceState.STARTING, {})
    story.reload()
    assert story.rollout(2).previous is None
    story.ready(2)
    story.serve(2)
    assert story.state() is ServiceState.SERVING


def test_a_first_generation_that_is_superseded_ends_nothing() -> None:
    """A first generation that gives way to a second one has not failed, whatever becomes of its workers."""
    story = begin(size=1)
    story.reload()
    story.exit(1)
    assert story.state() is ServiceState.STARTING
    assert story.generations() == {2: GenerationState.BOOTING}


# A reload


def test_a_reload_boots_beside_what_serves() -> None:
    """Until every new worker serves, the old generation is told nothing."""
    story = serving()
    story.reload()
    assert story.orders == [spawn(3, 2, 1, NEW), spawn(4, 2, 2, NEW)]
    rollout = story.rollout(2)
    assert (rollout.previous, rollout.previous_release, rollout.asked, rollout.begun) == (1, "srv/old", 60.0, 60.0)
    story.ready(3, 4)
    assert story.orders == [BeginAccept(3), BeginAccept(4)]
    story.serve(4)
    assert story.orders == []
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.ADMITTING}


def test_the_cut_over_drains_the_old() -> None:
    """With the last new worker serving, the old ones are told to drain, each with a deadline past its own."""
    story = serving(policy=Policy(drain_timeout=20.0, grace=4.0))
    story.reload()
    story.ready(3, 4)
    story.now = 65.0
    story.serve(3, 4)
    assert story.orders == [
        BeginDrain(1, ClassTimeouts(20.0, 600.0, 0.0), final=False, packet=16),
        BeginDrain(2, ClassTimeouts(20.0, 600.0, 0.0), final=False, packet=16),
    ]
    assert story.timers[Timer(TimerKind.DRAIN, 1)] == story.timers[Timer(TimerKind.DRAIN, 2)] == 109.0
    assert story.generations() == {1: GenerationState.DRAINING, 2: GenerationState.SERVING}
    assert story.fleet.generations[1].drained_from == 65.0
    assert story.news["rollout.cut-over"]["previous"] == 1
    assert story.rollout(2).state is RolloutState.DRAINING


def test_a_reload_is_done_when_the_old_has_left() -> None:
    """The rollout is done, and its old generation forgotten, with the old generation's last worker."""
    story = serving()
    story.reload()
    story.ready(3, 4)
    story.serve(3, 4)
    story.exit(2)
    assert (story.orders, story.news) == ([], {})
    story.now = 70.0
    story.exit(1)
    assert story.news == {
        "generation.gone": {"generation": 1, "moved": 0, "sessions": 0, "closed": 0, "told_to_close": 0},
        "rollout.done": {"rollout": 2, "generation": 2},
    }
    assert story.generations() == {2: GenerationState.SERVING}
    rollout = story.rollout(2)
    assert (rollout.state, rollout.cut, rollout.ended) == (RolloutState.DONE, 60.0, 70.0)


def test_what_forks_a_generations_workers_ends_with_it() -> None:
    """With its last worker, whether it has served or was called off; without --preload there is nothing to end."""
    preloading = replace(NEW, settings=replace(NEW.settings, preload=True))
    story = serving(size=1)
    story.reload(preloading)
    story.ready(2)
    story.serve(2)
    story.exit(1)
    assert EndPreload(1) not in story.orders
    story.reload()
    story.ready(3)
    story.serve(3)
    assert EndPreload(2) not in story.orders
    story.exit(2)
    assert story.orders == [EndPreload(2)]
    story.reload(preloading)
    story.tell(AbortAsked("test"))
    story.exit(4)
    assert story.orders == [EndPreload(4)]


def test_an_old_generation_is_not_filled_again() -> None:
    """A slot that waited for its next start when its generation was replaced stays empty."""
    story = serving(size=2)
    story.exit(1)
    story.tell(SpawnFailed(3, "no memory"))
    story.reload()
    story.ready(4, 5)
    story.serve(4, 5)
    assert story.generations() == {1: GenerationState.DRAINING, 2: GenerationState.SERVING}
    with pytest.raises(Refused, match=r"no vacancy 1\.1"):
        story.fire(TimerKind.RESPAWN, 1, slot=1)
    story.exit(2)
    assert story.orders == []


def test_an_old_generation_without_workers_leaves_at_the_cut_over() -> None:
    """Where every old slot waits for its next start, the cut-over ends the old generation and its waiting."""
    story = serving(size=1)
    story.reload()
    story.exit(1)
    story.tell(Spawned(3, 103), Exited(3, "exited 1"))
    respawn = next(timer for timer in story.timers if timer.kind is TimerKind.RESPAWN)
    story.ready(2)
    story.serve(2)
    assert list(story.news) == ["generation.gone", "rollout.cut-over", "rollout.done"]
    assert story.generations() == {2: GenerationState.SERVING}
    with pytest.raises(Refused, match=r"no vacancy 1\.1"):
        story.tell(TimerFired(respawn))


# A reload that fails


def test_a_failure_to_import_keeps_the_old() -> None:
    """A worker that cannot boot is ended; its exit brings its last words, then the rollout is off. The old serve."""
    story = serving()
    story.reload()
    story.ready(4)
    story.now = 62.0
    story.tell(Spawned(3, 103), HelloSaid(3), WorkerBootFailed(3, "import", "no module named app"))
    assert (story.orders, story.news) == ([Terminate(3)], {})
    assert story.timers[Timer(TimerKind.TERM, 3)] == 72.0
    assert story.rollout(2).state is RolloutState.BOOTING
    story.now = 63.0
    story.tell(Exited(3, "exited 1", "Traceback"))
    assert story.orders == [Terminate(4)]
    assert story.news == {
        "rollout.aborted": {
            "rollout": 2,
            "generation": 2,
            "reason": "import",
            "why": "2.1 (pid 103) failed (import)",
            "message": "no module named app",
            "output": "Traceback",
        }
    }
    rollout = story.rollout(2)
    assert (rollout.state, rollout.ended, rollout.reason) == (RolloutState.ABORTED, 63.0, "import")
    assert rollout.failure == Failure("import", "no module named app", "2.1", 103, "Traceback")
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.STOPPING}
    story.exit(4)
    assert story.generations() == {1: GenerationState.SERVING}
    assert story.state() is ServiceState.SERVING


@pytest.mark.parametrize(
    ("ends", "failure"),
    [
        ([Exited(2, "killed by SIGSEGV", "core")], Failure("exit", "killed by SIGSEGV", "2.1", 102, "core")),
        ([SpawnFailed(2, "no such file")], Failure("spawn", "no such file", "2.1")),
        (
            [WorkerBootFailed(2, "import", "no module"), SpawnFailed(2, "no module", "Traceback")],
            Failure("import", "no module", "2.1", output="Traceback"),
        ),
        (
            [HelloSaid(2), ChannelLost(2, "garbage"), Exited(2, "exited 0")],
            Failure("exit", "garbage", "2.1", 102),
        ),
        (
            [HelloSaid(2), BecameReady(2), ChannelLost(2, "garbage"), Exited(2, "exited 0")],
            Failure("exit", "garbage", "2.1", 102),
        ),
        (
            [HelloSaid(2), BecameReady(2), WorkerBootFailed(2, "accept", "no"), Exited(2, "exited 0")],
            Failure("accept", "no", "2.1", 102),
        ),
    ],
)
def test_a_worker_that_is_lost_on_its_way_ends_the_rollout(ends: list[Event], failure: Failure) -> None:
    """Whichever way a new worker is lost before it serves, the rollout tells why, and the old generation serves on."""
    story = serving(size=1)
    story.reload()
    story.tell(Spawned(2, 102), *ends)
    assert (story.rollout(2).reason, story.rollout(2).failure) == (failure.stage, failure)
    assert story.generations() == {1: GenerationState.SERVING}


def test_a_worker_that_never_was_a_process_has_no_pid() -> None:
    """Of a worker that could not be started the reason names the worker alone."""
    story = serving(size=1)
    story.reload()
    story.tell(SpawnFailed(2, "no memory"))
    assert story.news["rollout.aborted"]["why"] == "2.1 no memory"


@pytest.mark.parametrize(("said", "stage"), [([], "hello"), ([HelloSaid(2)], "boot")])
def test_a_worker_that_is_not_ready_in_time_is_ended(said: list[Event], stage: str) -> None:
    """At its boot deadline a worker is ended, and the reason tells whether it was ever heard of."""
    story = serving(size=1, policy=Policy(boot_timeout=7.5))
    story.reload()
    story.tell(Spawned(2, 102), *said)
    story.fire(TimerKind.BOOT, 2)
    assert (story.now, story.orders) == (67.5, [Terminate(2)])
    story.exit(2)
    assert story.rollout(2).failure == Failure(stage, "not ready after 7.5 s (--boot-timeout)", "2.1", 102)


def test_a_worker_that_does_not_accept_in_time_is_ended() -> None:
    """A worker that does not accept in time is ended; all of its rollout may hold clients, and drain."""
    story = serving(policy=Policy(admit_timeout=2.5))
    story.reload()
    story.ready(3, 4)
    story.serve(3)
    story.fire(TimerKind.ADMIT, 4)
    assert story.orders == [BeginDrain(4, uniform(5.0), final=False, packet=16), Terminate(4)]
    story.exit(4)
    assert story.orders == [BeginDrain(3, BESIDE, final=False, packet=16)]
    failure = story.rollout(2).failure
    assert failure == Failure("accept", "did not begin to accept within 2.5 s", "2.2", 104)
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.DRAINING}


def test_a_worker_at_its_limit_during_the_cut_over_is_replaced_after_it() -> None:
    """Before its cut-over a generation's slots are not filled twice; with it, a worker to be replaced has its turn."""
    story = serving(size=2)
    story.reload()
    story.ready(3, 4)
    story.serve(3)
    story.tell(Reported(3, recycle="old"))
    assert story.orders == []
    story.serve(4)
    assert story.orders[-1] == spawn(5, 2, 1, NEW)


def test_what_is_the_same_of_many_releases_is_kept_once() -> None:
    """However often it is reloaded, an environment that reads as before takes no more memory; another one is known."""
    story = serving(size=1)
    for number in range(2 * HISTORY):
        variables = {"A": "1"} if number < HISTORY else {"A": "1", "B": "2"}
        story.reload(replace(NEW, environment=variables))
    story.reload(replace(NEW, environment={"C": "3"}))
    known = [rollout.release.environment for rollout in story.fleet.rollouts]
    assert (len(known), known[-2:]) == (HISTORY + 1, [{"A": "1", "B": "2"}, {"C": "3"}])
    assert len(set(map(id, known))) == 2
