"""The gates: how often they are wrong about workers that are alike, and what they find."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core import gates
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.core.watch import Comparison, SideFigures, WatchReason
from stillup.core.worker_figures import BOUNDS, Answers
from tests.core.canary_story import buckets, counts

ONE = Strategy(StrategyKind.CANARY)
BUCKETS = len(BOUNDS) + 1
TUPLES = st.lists(st.integers(0, 1000), min_size=BUCKETS, max_size=BUCKETS).map(tuple)
COUNTED = st.builds(Answers, st.integers(0, 1000), TUPLES | st.just(()), TUPLES | st.just(()))


def side(chance: random.Random, requests: int, errors: float, slow: float, late: float) -> Answers:
    """What workers count of so many requests, with these probabilities, and of twenty heartbeats."""

    def of(number: int, probability: float) -> int:
        return sum(chance.random() < probability for _ in range(number))

    return counts(requests, of(requests, errors), of(requests, slow), beats=20, late=of(20, late))


def watches(
    seed: int, make_old: Callable[[random.Random], Answers], make_new: Callable[[random.Random], Answers]
) -> int:
    """In which interval of a watch, counted from 1, it fails; 0 if it does not."""
    chance = random.Random(seed)
    suspected: tuple[WatchReason, ...] = ()
    for interval in range(1, gates.INTERVALS + 1):
        found = gates.worse(make_old(chance), make_new(chance), ONE)
        if set(found) & set(suspected):
            return interval
        suspected = found
    return 0


@pytest.mark.parametrize(("errors", "slow", "late"), [(0.0, 0.009, 0.0), (0.02, 0.02, 0.1), (0.3, 0.3, 0.5)])
def test_workers_that_are_alike_pass(errors: float, slow: float, late: float) -> None:
    """Of 200 watches one at most fails, be both sides well or bad: by their tests less than one of 500 does."""
    failed = [
        watches(seed, lambda c: side(c, 400, errors, slow, late), lambda c: side(c, 100, errors, slow, late))
        for seed in range(200)
    ]
    assert sum(map(bool, failed)) <= 1


def test_one_error_of_ten_is_found() -> None:
    """In each of 100 watches, with a hundred requests an interval: 17 a second of the whole service."""
    failed = [
        watches(seed, lambda c: side(c, 400, 0.001, 0.0, 0), lambda c: side(c, 100, 0.1, 0.0, 0)) for seed in range(100)
    ]
    assert all(failed)
    assert sum(interval <= 3 for interval in failed) >= 90


def test_one_error_of_ten_is_never_passed() -> None:
    """With the fewest requests for a verdict two intervals need not say so; all of the watch does."""
    chance = random.Random(1)
    for _ in range(100):
        doubt = gates.doubt(side(chance, 200, 0.0, 0.0, 0), side(chance, 200, 0.1, 0.0, 0), ONE, 0.5)
        assert doubt is WatchReason.ERRORS


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (counts(400), counts(100, errors=10), (WatchReason.ERRORS,)),
        (counts(40_000), counts(10_000, errors=90), ()),  # beyond chance, but of a hundred less than one
        (counts(40_000), counts(10_000, errors=110), (WatchReason.ERRORS,)),
        (counts(40), counts(10, errors=1), ()),  # one of ten may be chance
        (counts(400), counts(100, slow=10), (WatchReason.LATENCY,)),
        (counts(400, slow=40), counts(100, slow=10), ()),
        (Answers(0, buckets(400, 0.001, 0, 0.1)), Answers(0, buckets(0, 0.005, 400, 0.005)), ()),  # 4 ms more
        (Answers(0, buckets(0, 0.001, 400, 0.05)), Answers(0, buckets(0, 0.001, 400, 0.1)), ()),  # not twice
        (Answers(0, (0,) * (BUCKETS - 1) + (400,)), counts(100, slow=100), ()),
        (counts(400, beats=40), counts(100, beats=10, late=4), (WatchReason.LAG,)),
        (counts(400, beats=40), counts(100, beats=10, late=1), ()),
        (counts(400), counts(100, errors=200), (WatchReason.ERRORS,)),  # more than it has answered
        (Answers(), Answers(), ()),
        (Answers(), counts(100, errors=100, slow=100, beats=10, late=10), ()),  # nothing to compare with
    ],
)
def test_what_is_worse(old: Answers, new: Answers, found: tuple[WatchReason, ...]) -> None:
    """By more than chance, and by as much as matters; a claim that cannot be is cut to what can."""
    assert gates.worse(old, new, ONE) == found


@pytest.mark.parametrize(
    ("old", "new", "part", "doubt"),
    [
        (800, 200, 0.2, None),
        (800, 199, 0.2, WatchReason.FEW_REQUESTS),
        (199, 200, 0.5, WatchReason.FEW_REQUESTS),
        (9000, 1001, 0.2, None),
        (9000, 999, 0.2, WatchReason.SHARE),
        (6000, 4000, 0.2, None),
        (5900, 4100, 0.2, WatchReason.SHARE),
        (200, 9999, 0.5, None),
    ],
)
def test_what_cannot_be_told(old: int, new: int, part: float, doubt: WatchReason | None) -> None:
    """With fewer than ``--min-requests`` on a side, or under half, or over double, of the share that was to be."""
    assert gates.doubt(counts(old), counts(new), ONE, part) is doubt


@given(before=COUNTED, more=COUNTED)
def test_what_was_counted_since(before: Answers, more: Answers) -> None:
    """It is what was added, be the buckets there or not; and never less than nothing."""
    now = gates.together((before, more))
    assert gates.counted({1: now}, {1: before}).requests == more.requests
    assert gates.counted({1: more}, {}).requests == more.requests
    assert gates.since(before, now).requests == 0
    assert gates.since(now, before).errors == more.errors


@given(durations=TUPLES, part=st.floats(0.01, 1.0))
def test_a_quantile_lies_in_its_bucket(durations: tuple[int, ...], part: float) -> None:
    """As many as it says took no longer than the bound of that bucket."""
    found = gates.quantile(durations, part)
    bucket = next((n for n, bound in enumerate(BOUNDS) if found <= bound), len(BOUNDS))
    beyond_all = found == BOUNDS[-1] and sum(durations[:-1]) < part * sum(durations)
    assert beyond_all or sum(durations[: bucket + 1]) >= part * sum(durations) - 1e-6


def test_quantiles() -> None:
    """Within a bucket as if its durations were spread evenly; beyond the last bound it is that; of nothing none."""
    assert gates.quantile(buckets(100, 0.05, 0, 0.1), 0.5) == pytest.approx(0.0375)
    assert gates.quantile((0,) * (BUCKETS - 1) + (3,), 0.99) == BOUNDS[-1]
    assert gates.quantile((), 0.99) == gates.quantile((0,) * BUCKETS, 0.99) == 0.0


def test_intervals() -> None:
    """A sixth of the watch, a second at least; one in which a side has answered next to nothing is none."""
    assert gates.interval(ONE) == 10.0
    assert gates.interval(replace(ONE, canary_time=2.0)) == 1.0
    assert gates.says_nothing(counts(400), counts(33), ONE)
    assert not gates.says_nothing(counts(400), counts(34), ONE)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        (WatchReason.ERRORS, "5xx 10.0 % (old 0.5 %)"),
        (WatchReason.LATENCY, "p99 90 ms (old 41 ms)"),
        (WatchReason.LAG, "event loops late by 200 ms (old 1 ms)"),
        (WatchReason.FEW_REQUESTS, "100 requests at the new workers, 200 at the old"),
        (WatchReason.SHARE, "the new workers got 33 % of the requests"),
        (WatchReason.SILENT, "not all of the new workers serve, and are heard"),
    ],
)
def test_what_people_read(reason: WatchReason, says: str) -> None:
    """The figures that a verdict is based on."""
    comparison = Comparison(SideFigures(200, 1, 0.041, 0.001), SideFigures(100, 10, 0.09, 0.2), 1 / 3)
    assert gates.text(reason, comparison) == says
