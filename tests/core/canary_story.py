"""Stories of canary rollouts: how they begin, and what their workers count."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from stillup.core.events import Reported
from stillup.core.policy import Policy, TimerKind
from stillup.core.states import RolloutState
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.core.watch import Watch
from stillup.core.worker_figures import BOUNDS, Answers
from tests.core.story import Story, serving

ONE = Strategy(StrategyKind.CANARY, canary_timeout=120.0)
"""Watched for 60 seconds, in intervals of ten."""
OLD, NEW = (1, 2, 3, 4), (5,)
"""Workers of the stories below."""


def canary(size: int = 4, strategy: Strategy = ONE) -> Story:
    """Generation 1 serves, with workers 1 to ``size``, which have reported; a reload has just been asked for."""
    story = serving(size, Policy(strategy=strategy))
    report(story, range(1, size + 1), counts(0))
    story.reload()
    return story


def watched(size: int = 4, strategy: Strategy = ONE) -> Story:
    """The canary, worker 5, has just come to serve beside 1 to 4."""
    story = canary(size, strategy)
    for worker in tuple(story.fleet.of(2)):
        story.ready(worker.serial)
        story.serve(worker.serial)
    assert state(story) is RolloutState.WATCHING
    return story


def counts(requests: int, errors: int = 0, slow: int = 0, *, beats: int = 0, late: int = 0) -> Answers:
    """So many answers, within 5 ms, but for the slow ones, which took up to 100 ms; and heartbeats."""
    return Answers(errors, buckets(requests - slow, 0.005, slow, 0.1), buckets(beats - late, 0.001, late, 0.25))


def buckets(fast: int, within: float, slow: int, in_all: float) -> tuple[int, ...]:
    made = [0] * (len(BOUNDS) + 1)
    made[BOUNDS.index(within)] += fast
    made[BOUNDS.index(in_all)] += slow
    return tuple(made)


def more(before: Answers, then: Answers) -> Answers:
    """What a worker has counted that has counted that before, and this since."""
    return Answers(
        before.errors + then.errors,
        tuple(a + b for a, b in zip_longest(before.durations, then.durations, fillvalue=0)),
        tuple(a + b for a, b in zip_longest(before.lags, then.lags, fillvalue=0)),
    )


def report(story: Story, serials: Iterable[int], then: Answers) -> None:
    """Let workers report what they have counted since."""
    for serial in serials:
        said = story.fleet.workers[serial].figures
        story.tell(Reported(serial, replace(said, answers=more(said.answers, then))))


def look(story: Story) -> None:
    """Let the interval end."""
    story.fire(TimerKind.GATE, 2)


def intervals(story: Story, times: int, new: Answers, old: Answers | None = None) -> None:
    """Let so many intervals pass in which each worker counts so much; the old ones what a healthy one does."""
    for _ in range(times):
        living = story.fleet.workers
        report(story, [n for n in NEW if n in living], new)
        report(story, [n for n in OLD if n in living], old if old is not None else counts(100))
        look(story)


def state(story: Story, number: int = 2) -> RolloutState:
    return story.rollout(number).state


def watch(story: Story) -> Watch:
    found = story.rollout(2).watch
    assert found is not None
    return found
