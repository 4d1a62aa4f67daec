"""Whether new workers do worse than old ones, by what both have counted over the same time.

1. Three shares are compared: of requests that the app has answered with a 5xx; of those that took longer than the
   bucket has it in which the old side's p99 lies; of heartbeats that came late by more than LATE. The test is Fisher's,
   one-sided (``core.significance``).
2. The new side is worse in an interval if its share is larger than chance explains in one case of a hundred, and if it
   is worse by as much as an operator cares for (``--max-error-rate``, ``--max-latency-ratio``): with many requests
   everything is significant.
3. It fails if it is worse in the same way in two intervals running. Were the sides alike, and requests independent,
   each pair of intervals would do so once in 10,000, in each of the three ways. What both sides suffer, a busy
   neighbour or a database that is down, shows on both, and is no difference.
4. An interval in which a side has answered next to nothing says nothing, and goes on. Nothing is passed by what was
   before it: a request that is never answered is in no count.
5. What is worse over the whole watch in errors is not passed, though no two intervals say so: traffic may be low. Of
   latency that is not asked, since a new process begins with its caches empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Final

from stillup.core.significance import Sample, p_value
from stillup.core.strategy import HUNDRED, Strategy
from stillup.core.watch import Comparison, SideFigures, WatchReason
from stillup.core.worker_figures import BOUNDS, Answers

ALPHA: Final = 0.01
"""What chance explains less often than this is significant."""
INTERVALS: Final = 6
"""Of a watch."""
SHORTEST_INTERVAL: Final = 1.0
"""Seconds: workers that answer report about once in one."""
LATE: Final = 0.1
"""Seconds by which a heartbeat is late; a bound of the histogram."""
LATE_MORE: Final = 0.1
"""Of all heartbeats so many more have to be late."""
SLOWER: Final = 0.005
"""Seconds by which the new side's p99 is longer, at least: of shorter times a machine's mood makes a multiple."""
PERCENTILE: Final = 0.99
LEAST_OF_SHARE: Final = 0.5
MOST_OF_SHARE: Final = 2.0
"""Of what the canary's part of the workers would have it get."""


def interval(strategy: Strategy) -> float:
    """Seconds."""
    return max(SHORTEST_INTERVAL, strategy.canary_time / INTERVALS)


def since(now: Answers, before: Answers) -> Answers:
    """What was counted since."""
    return Answers(
        max(0, now.errors - before.errors),
        tuple(max(0, a - b) for a, b in zip_longest(now.durations, before.durations, fillvalue=0)),
        tuple(max(0, a - b) for a, b in zip_longest(now.lags, before.lags, fillvalue=0)),
    )


def together(all_of: Iterable[Answers]) -> Answers:
    """The counts of several."""
    total = Answers()
    for one in all_of:
        total = Answers(
            total.errors + one.errors,
            tuple(a + b for a, b in zip_longest(total.durations, one.durations, fillvalue=0)),
            tuple(a + b for a, b in zip_longest(total.lags, one.lags, fillvalue=0)),
        )
    return total


def counted(now: Mapping[int, Answers], baseline: Mapping[int, Answers]) -> Answers:
    """What these workers have counted since; by serial. One without a baseline has counted nothing before."""
    return together(since(answers, baseline.get(serial, Answers())) for serial, answers in now.items())


def says_nothing(old: Answers, new: Answers, strategy: Strategy) -> bool:
    """Whether a side has answered too little in an interval."""
    return min(old.requests, new.requests) * INTERVALS < strategy.min_requests


def worse(old: Answers, new: Answers, strategy: Strategy) -> tuple[WatchReason, ...]:
    """In what the new side is worse in an interval."""
    found = [
        (WatchReason.ERRORS, _errs(old, new, strategy)),
        (WatchReason.LATENCY, _is_slower(old, new, strategy)),
        (WatchReason.LAG, _lags(old, new)),
    ]
    return tuple(reason for reason, is_worse in found if is_worse)


def doubt(old: Answers, new: Answers, strategy: Strategy, part: float) -> WatchReason | None:
    """Why it cannot be told whether the new side does as well, over a whole watch; None if it can.

    Args:
        old: what the old side has counted.
        new: what the new side has.
        strategy: whose limits hold.
        part: of all workers those of the new side; of 1.
    """
    if min(old.requests, new.requests) < strategy.min_requests:
        return WatchReason.FEW_REQUESTS
    share = compare(old, new).share
    if not LEAST_OF_SHARE * part <= share <= MOST_OF_SHARE * part:
        return WatchReason.SHARE
    return WatchReason.ERRORS if _errs(old, new, strategy) else None


def compare(old: Answers, new: Answers) -> Comparison:
    """The figures that people look at."""
    all_of_them = old.requests + new.requests
    return Comparison(_figures(old), _figures(new), new.requests / all_of_them if all_of_them else 0.0)


def quantile(buckets: tuple[int, ...], part: float) -> float:
    """Seconds that so large a part took at most, as if those of a bucket were spread evenly; 0 if there are none."""
    wanted, before = part * sum(buckets), 0
    for bucket, count in enumerate(buckets):
        if count and before + count >= wanted:
            lower = BOUNDS[bucket - 1] if bucket else 0.0
            upper = BOUNDS[bucket] if bucket < len(BOUNDS) else lower
            return lower + (upper - lower) * (wanted - before) / count
        before += count
    return 0.0


def text(reason: WatchReason, comparison: Comparison) -> str:
    """What a verdict is based on, for people."""
    old, new = comparison.old, comparison.new
    match reason:
        case WatchReason.ERRORS:
            return f"5xx {_percent(new.errors, new.requests)} (old {_percent(old.errors, old.requests)})"
        case WatchReason.LATENCY:
            return f"p99 {_milliseconds(new.p99)} (old {_milliseconds(old.p99)})"
        case WatchReason.LAG:
            return f"event loops late by {_milliseconds(new.lag)} (old {_milliseconds(old.lag)})"
        case WatchReason.FEW_REQUESTS:
            return f"{new.requests} requests at the new workers, {old.requests} at the old"
        case WatchReason.SILENT:
            return "not all of the new workers serve, and are heard"
        case _:
            return f"the new workers got {comparison.share * HUNDRED:.0f} % of the requests"


def summary(comparison: Comparison) -> str:
    """How a canary has done that was passed, for people."""
    return ", ".join(text(reason, comparison) for reason in (WatchReason.ERRORS, WatchReason.LATENCY))


def _errs(old: Answers, new: Answers, strategy: Strategy) -> bool:
    reference, sample = (Sample(min(side.errors, side.requests), side.requests) for side in (old, new))
    more = sample.share - reference.share
    return more * HUNDRED > strategy.max_error_rate and p_value(sample, reference) < ALPHA


def _is_slower(old: Answers, new: Answers, strategy: Strategy) -> bool:
    usual = quantile(old.durations, PERCENTILE)
    took = quantile(new.durations, PERCENTILE)
    if took <= max(strategy.max_latency_ratio * usual, usual + SLOWER):
        return False
    slow = _bucket(usual)
    return p_value(_beyond(new.durations, slow), _beyond(old.durations, slow)) < ALPHA


def _lags(old: Answers, new: Answers) -> bool:
    reference, sample = (_beyond(side.lags, _bucket(LATE)) for side in (old, new))
    return sample.share - reference.share > LATE_MORE and p_value(sample, reference) < ALPHA


def _bucket(seconds: float) -> int:
    """Which bucket takes what is as long."""
    return next((bucket for bucket, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))


def _beyond(buckets: tuple[int, ...], bucket: int) -> Sample:
    """Those that are of a later bucket."""
    return Sample(sum(buckets[bucket + 1 :]), sum(buckets))


def _figures(side: Answers) -> SideFigures:
    requests = side.requests
    return SideFigures(
        requests, min(side.errors, requests), quantile(side.durations, PERCENTILE), quantile(side.lags, PERCENTILE)
    )


def _percent(part: int, whole: int) -> str:
    return f"{HUNDRED * part / whole if whole else 0.0:.1f} %"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
