"""How much a worker may say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stillup.core.message_allowance import AT_START, BYTES, COMING_BACK, MOST, PER_SECOND, Allowance, cost_of


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 200.0)), max_size=50))
def test_never_more_than_that(spendings: list[tuple[float, float]]) -> None:
    """Over any time no more is spent than an account holds and what time adds."""
    account, now, spent, passed = Allowance(0.0), 0.0, 0.0, 0.0
    for seconds, cost in spendings:
        now += seconds
        passed += seconds
        if account.spend(cost, now):
            spent += cost
        assert 0.0 <= account.left <= MOST
        assert spent <= AT_START + PER_SECOND * passed + 1e-6


def test_what_a_worker_says_is_never_too_much() -> None:
    """Ten reports a second for an hour, and half a minute of them that were not read in time and come at once."""
    account = Allowance(0.0)
    assert all(account.spend(cost_of(500), number / 10) for number in range(36_000))
    assert all(account.spend(cost_of(500), 3630.0) for _ in range(300))


def test_large_messages_cost_more() -> None:
    """A message of 128 KiB costs 65 small ones."""
    assert (cost_of(0), cost_of(BYTES - 1), cost_of(BYTES), cost_of(128 * 1024)) == (1, 1, 2, 65)
    assert cost_of(0) < COMING_BACK < AT_START < MOST


def test_who_has_said_too_much_waits() -> None:
    """Nothing more may be said when all was spent, and nothing is taken for that; later there is some."""
    account = Allowance(0.0)
    assert account.spend(AT_START, 0.0)
    assert not account.spend(1, 0.0)
    assert not account.spend(PER_SECOND + 1, 1.0)
    assert account.spend(PER_SECOND, 1.0)
