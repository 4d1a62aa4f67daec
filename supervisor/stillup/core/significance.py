"""Whether a share is larger than another one by more than chance."""

from __future__ import annotations

from math import exp, lgamma
from sys import float_info
from typing import Final

import msgspec

MOST: Final = 10_000_000
"""Larger samples are reduced to so many together: lgamma(3) has 53 bits. That makes the test a cautious one."""
NEGLIGIBLE: Final = 1e-12
"""Part of a sum that is not worth another term."""
NOTHING: Final = float_info.min
"""A term below this has lost its precision: multiplied by less than 1 it may stay as it is, or is 0, without end."""


class Sample(msgspec.Struct, frozen=True):
    """So many of so many."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        """Of 1."""
        return self.hits / self.of if self.of else 0.0


def p_value(sample: Sample, reference: Sample) -> float:
    """How likely a share as large as that of ``sample`` is, if both were drawn alike; at most 1.

    Fisher's exact test, one-sided (R. A. Fisher, Statistical Methods for Research Workers, 5th ed. 1934, 21.02): with
    the totals as they are, the hits of the sample are hypergeometric, and what is summed are the probabilities of as
    many hits or more. It asks nothing of the size of the samples, as a normal approximation would.
    """
    hits, of, other_hits, other_of = _reduced(sample, reference)
    total, all_hits = of + other_of, hits + other_hits
    if hits * total <= of * all_hits:
        return 1.0  # no more than was to be expected
    term = exp(
        _log_choices(all_hits, hits) + _log_choices(total - all_hits, of - hits) - _log_choices(total, of)
    )  # of exactly so many
    result = term
    for more in range(hits, min(all_hits, of)):
        term *= (all_hits - more) * (of - more) / ((more + 1) * (total - all_hits - of + more + 1))
        result += term
        if term < max(NOTHING, NEGLIGIBLE * result):
            break
    return min(1.0, result)


def _reduced(sample: Sample, reference: Sample) -> tuple[int, int, int, int]:
    by = -(-(sample.of + reference.of) // MOST) or 1
    of, other_of = sample.of // by, reference.of // by
    return min(sample.hits // by, of), of, min(-(-reference.hits // by), other_of), other_of


def _log_choices(total: int, chosen: int) -> float:
    """The logarithm of the binomial coefficient."""
    return lgamma(total + 1) - lgamma(chosen + 1) - lgamma(total - chosen + 1)
