"""When a worker asks to be replaced, and why."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.worker.recycling import AGE_JITTER, RecyclingLimits, draw

MB = 1 << 20


@pytest.mark.parametrize(
    ("requests", "age", "rss", "why"),
    [
        (999, 3599.9, 512 * MB - 1, ""),
        (1000, 0.0, 0, "1000 requests (--limit-max-requests)"),
        (1200, 0.0, 0, "1200 requests (--limit-max-requests)"),
        (0, 3600.0, 0, "age 3600 s (--max-worker-age)"),
        (0, 0.0, 512 * MB, "rss 512 MB (--max-worker-rss)"),
        (0, 0.0, 530 * MB, "rss 530 MB (--max-worker-rss)"),
        (1000, 3600.0, 530 * MB, "1000 requests (--limit-max-requests)"),
        (0, 3600.0, 530 * MB, "age 3600 s (--max-worker-age)"),
    ],
)
def test_a_limit_that_is_reached_is_named(requests: int, age: float, rss: int, why: str) -> None:
    """Each limit holds by itself, from the figure itself on; the reason has the figure and the option."""
    limits = RecyclingLimits(requests=1000, age=3600.0, rss=512 * MB)
    assert limits.reason(requests=requests, age=age, rss=rss) == why


@given(requests=st.integers(0), age=st.floats(0.0), rss=st.integers(0))
def test_without_limits_no_worker_is_replaced(requests: int, age: float, rss: int) -> None:
    """Without limits no worker asks to be replaced."""
    assert RecyclingLimits().reason(requests=requests, age=age, rss=rss) == ""


@given(seed=st.integers(), age=st.floats(0.1, 1e9), requests=st.integers(1, 10**9), jitter=st.integers(0, 10**6))
def test_a_limit_is_never_lowered(seed: int, age: float, requests: int, jitter: int) -> None:
    """Jitter comes on top: up to 10 % of the age, up to what was said of the requests, and none of the memory."""
    chance = random.Random(seed)
    limits = draw(chance, requests=requests, requests_jitter=jitter, age=age, rss=512 * MB)
    assert limits.age is not None
    assert age <= limits.age <= age * (1 + AGE_JITTER) * (1 + 1e-9)
    assert limits.requests is not None
    assert requests <= limits.requests <= requests + jitter
    assert limits.rss == 512 * MB


def test_workers_that_start_together_are_not_replaced_together() -> None:
    """Of a hundred workers with the same limit, hardly two reach it in the same second of an hour's limit."""
    chance = random.Random(7)
    ages = [draw(chance, requests=None, requests_jitter=0, age=3600.0, rss=None).age for _ in range(100)]
    assert len({int(age) for age in ages if age is not None}) > 50
    assert AGE_JITTER == 0.1


def test_what_is_not_limited_is_drawn_as_nothing() -> None:
    """Jitter alone makes no limit."""
    assert draw(random.Random(1), requests=None, requests_jitter=100, age=None, rss=None) == RecyclingLimits()
