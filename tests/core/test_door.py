"""Laws of the door: who has to go for a newcomer, and who was slow for too long."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.door import Caller, Deadlines, Doing, Limits, is_overdue, whom_to_end
from supervisor.errors import Unavailable

OWN = 500
LIMITS = Limits(most=12, per_uid=5, reserved=3, privileged=frozenset({0, OWN}))
UIDS = st.sampled_from([0, OWN, 1000, 1001, 1002, 1003])


@st.composite
def _crowds(draw: st.DrawFn) -> list[Caller]:
    """As many connections as may be open, of few users or of many, so that either limit is met often."""
    users = st.sampled_from(draw(st.lists(UIDS, min_size=1, max_size=6)))
    drawn = draw(st.lists(st.tuples(users, st.sampled_from(Doing), st.integers(0, 9)), max_size=3 * LIMITS.most))
    held: Counter[int] = Counter()
    crowd: list[Caller] = []
    for uid, doing, since in drawn:
        if held[uid] < LIMITS.per_uid and len(crowd) < LIMITS.most:
            held[uid] += 1
            crowd.append(Caller(len(crowd), uid, doing, float(since)))
    return crowd


def _let_in(crowd: list[Caller], uid: int, limits: Limits = LIMITS) -> list[Caller]:
    """The crowd after a newcomer of that user, who says nothing."""
    gone = whom_to_end(crowd, uid, limits)
    return [*(caller for caller in crowd if caller is not gone), Caller(_next(crowd), uid, Doing.SILENT, 10.0)]


def _next(crowd: list[Caller]) -> int:
    return max((caller.number for caller in crowd), default=0) + 1


@given(_crowds(), UIDS)
def test_nobody_who_is_being_answered_goes(crowd: list[Caller], uid: int) -> None:
    """Whoever goes was not being answered, neither by another user's newcomer nor by his own."""
    try:
        gone = whom_to_end(crowd, uid, LIMITS)
    except Unavailable:
        return
    assert gone is None or gone.doing not in (Doing.BUSY, Doing.UNREAD)


@given(_crowds(), UIDS)
def test_the_limits_hold(crowd: list[Caller], uid: int) -> None:
    """After every newcomer there are at most as many as before where a limit was reached, and one more where not."""
    try:
        after = _let_in(crowd, uid)
    except Unavailable:
        return
    held = sum(caller.uid == uid for caller in after)
    assert held <= LIMITS.per_uid
    assert len(after) <= LIMITS.most
    if uid not in LIMITS.privileged:
        assert len(after) <= max(len(crowd), LIMITS.most - LIMITS.reserved)


@given(_crowds(), UIDS)
def test_nobody_goes_while_there_is_room(crowd: list[Caller], uid: int) -> None:
    """Below both limits nobody goes, and nobody is turned away."""
    held = sum(caller.uid == uid for caller in crowd)
    if held < LIMITS.per_uid and len(crowd) < LIMITS.most - LIMITS.reserved:
        assert whom_to_end(crowd, uid, LIMITS) is None


@given(_crowds(), UIDS)
def test_a_user_pays_with_his_own(crowd: list[Caller], uid: int) -> None:
    """A newcomer takes another user's place only if that one has more, or if the newcomer is privileged.

    And of those who could make room it is the one who has most.
    """
    try:
        gone = whom_to_end(crowd, uid, LIMITS)
    except Unavailable:
        return
    held = Counter(caller.uid for caller in crowd)
    if gone is None or gone.uid == uid:
        return
    assert held[uid] < LIMITS.per_uid
    assert uid in LIMITS.privileged or held[gone.uid] > held[uid]
    assert held[gone.uid] == max(held[caller.uid] for caller in crowd if caller.doing.may_go)


@given(_crowds(), UIDS)
def test_the_least_useful_goes(crowd: list[Caller], uid: int) -> None:
    """Of one user, whoever goes is the least useful, and of those alike the oldest."""
    try:
        gone = whom_to_end(crowd, uid, LIMITS)
    except Unavailable:
        return
    if gone is not None:
        of_his = [(caller.doing, caller.since) for caller in crowd if caller.uid == gone.uid]
        assert (gone.doing, gone.since) == min(of_his)


@given(_crowds(), UIDS)
def test_turned_away_only_where_nobody_may_go(crowd: list[Caller], uid: int) -> None:
    """A newcomer is turned away only while all of his own are busy; a privileged one only where everybody is."""
    try:
        whom_to_end(crowd, uid, LIMITS)
    except Unavailable:
        assert all(not caller.doing.may_go for caller in crowd if caller.uid == uid)
        if uid in LIMITS.privileged and sum(caller.uid == uid for caller in crowd) < LIMITS.per_uid:
            assert all(not caller.doing.may_go for caller in crowd)


@given(st.lists(UIDS, max_size=80), st.sampled_from([0, OWN]))
def test_privileged_users_always_get_in_beside_the_silent(silent: list[int], uid: int) -> None:
    """However many connections say nothing, whose they may be, root and the own user get in, and become busy."""
    crowd: list[Caller] = []
    for of in silent:
        crowd = _let_in(crowd, of)
    busy = 0
    for _ in range(LIMITS.per_uid):
        crowd = _let_in(crowd, uid)
        busy = crowd[-1].number
        crowd[-1] = Caller(busy, uid, Doing.BUSY, 10.0)
    for of in silent:
        if of != uid:
            crowd = _let_in(crowd, of)
    assert sum(caller.doing is Doing.BUSY for caller in crowd) == LIMITS.per_uid


def test_a_place_is_kept_for_the_privileged() -> None:
    """Though all others are busy, at their limit, root and the own user get in; the others' newcomer does not."""
    crowd = [Caller(number, 1000 + number % 3, Doing.BUSY, 0.0) for number in range(9)]
    with pytest.raises(Unavailable, match="9 connections are open"):
        whom_to_end(crowd, 1003, LIMITS)
    assert whom_to_end(crowd, 0, LIMITS) is None
    assert whom_to_end(crowd, OWN, LIMITS) is None


def test_who_has_all_of_his_busy_is_told_whose_they_are() -> None:
    """Turned away by his own limit, a user is named with it."""
    crowd = [Caller(number, 1000, Doing.BUSY, 0.0) for number in range(5)]
    with pytest.raises(Unavailable, match="5 connections of uid 1000 are open and busy"):
        whom_to_end(crowd, 1000, LIMITS)


@pytest.mark.parametrize("doing", list(Doing))
def test_deadlines(doing: Doing) -> None:
    """Asking and reading have their deadlines; whoever waits for an answer has none."""
    deadline = {Doing.SILENT: 10.0, Doing.ASKING: 10.0, Doing.UNREAD: 60.0}.get(doing)
    caller = Caller(1, 0, doing, 100.0)
    if deadline is None:
        assert not is_overdue(caller, 1e9, Deadlines())
    else:
        assert not is_overdue(caller, 100.0 + deadline - 0.1, Deadlines())
        assert is_overdue(caller, 100.0 + deadline, Deadlines())
