"""A fleet that another supervisor left: whether it could have been, what the living say it is, whether it is ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.commands import BeginDrain
from supervisor.core.events import Resumed, ScaleAsked
from supervisor.core.model import (
    Fleet,
    Generation,
    GenerationState,
    Policy,
    RolloutState,
    ServiceState,
    Worker,
    WorkerState,
)
from supervisor.core.recovery import Claim, consistent, rebuild
from supervisor.core.release import label, same
from tests.core.telling import NEW, OLD, Story, cutting_over, draining, spawn

# Without a record


def claim(pid: int, generation: int, slot: int, *, draining: bool = False) -> Claim:
    return Claim(pid, 10 * pid, generation, slot, draining, NEW if generation > 1 else OLD)


def rebuilt(*claims: Claim, size: int = 2) -> Story:
    story = Story(size)
    story.now = 60.0
    story.fleet = rebuild(claims, policy=Policy(), size=size, now=60.0)
    return story


def test_a_fleet_of_claims() -> None:
    """Workers of one generation that say they serve are that generation, which serves."""
    story = rebuilt(claim(101, 3, 1), claim(102, 3, 2))
    fleet = story.fleet
    assert consistent(fleet)
    assert fleet.generations == {3: Generation(3, GenerationState.SERVING, NEW, size=2)}
    assert fleet.workers[2] == Worker(2, 3, 2, WorkerState.SERVING, spawned=60.0, pid=102, started=1020)
    assert (fleet.state, fleet.last_generation, fleet.last_worker) == (ServiceState.SERVING, 3, 2)
    story.take_over(1, 2)
    assert story.orders == []
    story.reload()
    assert story.orders == [spawn(3, 4, 1, NEW), spawn(4, 4, 2, NEW)]


def test_claims_of_several_generations() -> None:
    """The latest generation in which somebody serves is the one; who serves in an older one is told to drain."""
    drain = claim(103, 3, 1, draining=True), claim(104, 2, 2, draining=True)
    story = rebuilt(claim(101, 1, 1), claim(102, 2, 1), *drain)
    assert story.generations() == {
        1: GenerationState.DRAINING,
        2: GenerationState.SERVING,
        3: GenerationState.DRAINING,
    }
    assert story.fleet.generations[1].drained_from == 60.0
    assert consistent(story.fleet)
    story.take_over(1, 2, 3, 4)
    assert story.orders == [spawn(5, 2, 2, NEW)], "slot 2 of it drains"
    story.tell(Resumed(1, draining=False))
    assert story.orders == [BeginDrain(1, 30.0, final=False, packet=64)]
    story.tell(*(Resumed(serial, draining=serial > 2) for serial in (2, 3, 4)))
    assert story.orders == []


def test_a_slot_that_nobody_claims() -> None:
    """A generation is as large as its highest slot that is claimed; the slots below it are filled."""
    story = rebuilt(claim(101, 1, 3))
    assert story.fleet.generations[1].size == 3
    story.take_over(1)
    assert story.orders == [spawn(2, 1, 1), spawn(3, 1, 2)]


@pytest.mark.parametrize("claims", [[], [claim(101, 1, 1, draining=True)]])
def test_nobody_serves(claims: list[Claim]) -> None:
    """Where nobody serves, the service is yet to start."""
    story = rebuilt(*claims)
    assert story.state() is ServiceState.STARTING
    assert consistent(story.fleet)
    story.reload()
    assert spawn(len(claims) + 1, len(claims) + 1, 1, NEW) in story.orders


# What could have been


def told() -> Fleet:
    """A fleet with everything in it: one generation serves, one drains, one boots, and a worker is wanted more."""
    story = draining(2)
    story.tell(ScaleAsked(3))
    story.reload()
    return story.fleet


def test_a_real_fleet_is_consistent() -> None:
    """A fleet that came to be step by step is consistent."""
    assert consistent(told())
    assert consistent(cutting_over().fleet)
    assert consistent(Fleet())


def changed_worker(**fields: object) -> Fleet:
    fleet = told()
    return fleet.with_worker(replace(fleet.workers[3], **fields))  # type: ignore[arg-type]


def changed_generation(number: int, **fields: object) -> Fleet:
    fleet = told()
    generations = {**fleet.generations, number: replace(fleet.generations[number], **fields)}  # type: ignore[arg-type]
    return replace(fleet, generations=generations)


def changed_rollout(number: int, **fields: object) -> Fleet:
    fleet = told()
    rollouts = tuple(
        replace(one, **fields) if one.id == number else one  # type: ignore[arg-type]
        for one in fleet.rollouts
    )
    return replace(fleet, rollouts=rollouts)


def without_workers_of(number: int) -> Fleet:
    fleet = told()
    return replace(fleet, workers={n: w for n, w in fleet.workers.items() if w.generation != number})


IMPOSSIBLE = {
    "stopped": replace(told(), state=ServiceState.STOPPED),
    "serving while it starts": replace(told(), state=ServiceState.STARTING),
    "nobody serves": changed_generation(2, state=GenerationState.DRAINING),
    "two serve": changed_generation(1, state=GenerationState.SERVING),
    "a generation under another number": replace(told(), generations={**told().generations, 9: told().generations[2]}),
    "a generation of the future": replace(told(), last_generation=1),
    "a generation that is gone": changed_generation(1, state=GenerationState.GONE),
    "a generation that drains and has nobody": without_workers_of(1),
    "a generation that boots without a rollout": changed_rollout(3, state=RolloutState.ABORTED),
    "a generation that boots by another's rollout": changed_rollout(3, generation=2),
    "a rollout that cuts over to who boots": changed_rollout(3, state=RolloutState.CUTTING_OVER),
    "two rollouts before their cut-over": changed_rollout(2, state=RolloutState.WAITING),
    "a rollout of the future": replace(told(), last_rollout=1),
    "a scaling of the future": replace(told(), last_scaling=0),
    "two scalings under way": replace(told(), scalings=told().scalings * 2),
    "a worker under another number": replace(told(), workers={**told().workers, 4: told().workers[3]}),
    "a worker of no generation": changed_worker(generation=7),
    "a worker of the future": replace(told(), last_worker=3),
    "a worker that has exited": changed_worker(state=WorkerState.EXITED),
    "a worker that serves where all drain": changed_worker(generation=1),
    "a pid that is none": changed_worker(pid=0),
    "a pid below none": changed_worker(pid=-1),
    "a pid beyond the kernel's": changed_worker(pid=2**22 + 1),
    "no workers wanted": replace(told(), size=0),
    "too many workers wanted": replace(told(), size=10**12),
    "a generation of too many": changed_generation(2, size=10**12),
    "a generation of none": changed_generation(2, size=0),
    "a scaling to too many": replace(told(), scalings=(replace(told().scalings[0], size=10**12),)),
}


@pytest.mark.parametrize("fleet", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_could_not_have_been(fleet: Fleet) -> None:
    """A fleet whose parts contradict each other, or that would have us start workers without end, is none of ours."""
    assert not consistent(fleet)


# The same thing


def test_the_same_release() -> None:
    """Two starts of one thing differ in what a shell or a service manager makes anew each time, and in nothing else."""
    one = replace(OLD, environment={"A": "1", "INVOCATION_ID": "x", "SHLVL": "1"})
    assert same(one, replace(OLD, environment={"A": "1", "INVOCATION_ID": "y", "_": "/usr/bin/stillup"}))
    assert not same(one, replace(OLD, environment={"A": "2"}))
    assert not same(one, replace(OLD, environment={}))
    assert not same(OLD, NEW)
    assert not same(OLD, replace(OLD, options={"http": "h11"}))
    assert not same(OLD, replace(OLD, max_worker_age=3.0))


@pytest.mark.parametrize(("directory", "called"), [("/srv/app/releases/42", "releases/42"), ("/srv", "srv"), ("/", "")])
def test_how_people_call_a_release(directory: str, called: str) -> None:
    """By the last two parts of its directory."""
    assert label(directory) == called
