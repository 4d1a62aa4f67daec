"""A fleet that another supervisor left: whether it could have been, what the living say it is, whether it is ours."""

from __future__ import annotations

import pytest

from stillup.core.commands import BeginDrain, BeginLeading
from stillup.core.events import ScaleAsked, WorkerResumed
from stillup.core.model import Fleet, Generation, Worker
from stillup.core.policy import Policy
from stillup.core.rebuild import Claim, consistent, first_fleet, fleet_of_record, rebuild
from stillup.core.release import label, same
from stillup.core.states import GenerationState, RolloutState, ServiceState, WorkerState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.term import Term
from stillup.core.values import replace
from stillup.core.worker_settings import WorkerSettings
from tests.core.rolling_story import going_back, shifting
from tests.core.story import BESIDE, NEW, OLD, Story, cutting_over, draining, spawn

# The first one, and one on record


def test_the_first_fleet_runs_nothing() -> None:
    """A service begins without workers, under the policy and with the size that the operator chose."""
    policy = Policy(boot_timeout=7.0)
    assert first_fleet(policy, 3) == Fleet(policy=policy, size=3)
    assert consistent(first_fleet(policy, 3))


def test_a_fleet_on_record_gets_the_policy_of_this_start() -> None:
    """What another supervisor left is taken as it is, but for the policy."""
    left = draining(2).fleet
    assert fleet_of_record(left, Policy(boot_timeout=7.0)) == replace(left, policy=Policy(boot_timeout=7.0))


# Without a record


def claim(pid: int, generation: int, slot: int, *, draining: bool = False) -> Claim:
    return Claim(pid, 10 * pid, generation, slot, draining, NEW if generation > 1 else OLD)


def test_a_claim_to_lead() -> None:
    """Who says that it leads does so on, in a term whose number is higher than any that a worker was told."""
    leads = replace(claim(102, 3, 2), leads=True)
    story = rebuilt(claim(101, 3, 1), leads)
    assert story.fleet.term == Term(61, 2)
    assert consistent(story.fleet)
    story.tell(WorkerResumed(2, draining=False))
    assert story.orders == [BeginLeading(2, 61)]
    assert rebuilt(claim(101, 3, 1)).fleet.term == Term(61)


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


def test_half_of_a_rolling_rollout() -> None:
    """Half of what was wanted is of either generation: what is missing of the one that serves is started at once."""
    story = rebuilt(*(claim(100 + n, 1 + n // 2, 1 + n % 2) for n in range(4)), size=4)
    assert consistent(story.fleet)
    story.take_over(1, 2, 3, 4)
    assert story.orders == [spawn(5, 2, 3, NEW), spawn(6, 2, 4, NEW)]


def test_claims_of_several_generations() -> None:
    """Of those in which as many workers serve the latest is the one; who serves in an older one is to drain."""
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
    story.tell(WorkerResumed(1, draining=False))
    assert story.orders == [BeginDrain(1, BESIDE, final=False, packet=64)]
    story.tell(*(WorkerResumed(serial, draining=serial > 2) for serial in (2, 3, 4)))
    assert story.orders == []


def test_claims_in_the_middle_of_a_rolling_rollout() -> None:
    """Most serve in the old generation: that one is kept, since the new one alone would be too few."""
    story = rebuilt(claim(101, 1, 1), claim(102, 1, 2), claim(103, 2, 1))
    assert story.generations() == {1: GenerationState.SERVING, 2: GenerationState.DRAINING}


def test_a_slot_that_nobody_claims() -> None:
    """A generation is as large as its highest slot that is claimed; the slots below it are filled."""
    story = rebuilt(claim(101, 1, 3))
    assert story.fleet.generations[1].size == 3
    story.take_over(1)
    assert story.orders == [spawn(2, 1, 1), spawn(3, 1, 2)]


@pytest.mark.parametrize("claims", [[], [claim(101, 1, 1, draining=True)]])
def test_nobody_serves(claims: list[Claim]) -> None:
    """Where no worker serves, the service is yet to start."""
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
    assert consistent(shifting().fleet)
    assert consistent(going_back().fleet)


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


def changed_plan(**fields: object) -> Fleet:
    fleet = shifting().fleet
    return fleet.with_rollout(replace(fleet.rollouts[-1], **fields))  # type: ignore[arg-type]


IMPOSSIBLE = {
    "a plan that takes the places of nobody": changed_plan(previous=None),
    "a plan without bounds": changed_plan(strategy=Strategy(StrategyKind.ROLLING, max_surge=-1)),
    "two plans": changed_plan(id=1),
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
    "a leader that is not there": replace(told(), term=Term(3, 99)),
    "a leader of the future": changed_worker(led=7),
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
    assert not same(OLD, replace(OLD, settings=WorkerSettings(max_worker_age=3.0)))
    assert same(OLD, replace(OLD, settings=WorkerSettings(orphan_timeout=3.0))), "its default is the terminal's affair"
    assert same(OLD, replace(OLD, settings=WorkerSettings(report_interval=5.0))), "it comes of --hang-timeout"


@pytest.mark.parametrize(("directory", "called"), [("/srv/app/releases/42", "releases/42"), ("/srv", "srv"), ("/", "")])
def test_how_people_call_a_release(directory: str, called: str) -> None:
    """By the last two parts of its directory."""
    assert label(directory) == called
