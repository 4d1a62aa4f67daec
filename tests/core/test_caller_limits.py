"""Which connection of the control server ends for a newcomer, and which was slow for too long."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillup.core.caller_limits import (
    CallerConnection,
    Deadlines,
    Doing,
    Limits,
    Newcomer,
    connection_to_end,
    is_overdue,
    may_last,
)
from stillup.errors import Unavailable

OWN = 500
LIMITS = Limits(
    most=12,
    per_uid=5,
    reserved=3,
    privileged=frozenset({0, OWN}),
    for_few=1,
    few=2,
    without_right=3,
    lasting=3,
    lasting_of_others=4,
)
PIDS = st.integers(1, 3)
UIDS = st.sampled_from([0, OWN, 1000, 1001, 1002, 1003])


@st.composite
def _crowds(draw: st.DrawFn) -> list[CallerConnection]:
    """As many connections as may be open, of few users or of many, so that either limit is met often."""
    users = st.sampled_from(draw(st.lists(UIDS, min_size=1, max_size=6)))
    one = st.tuples(users, st.sampled_from(Doing), st.integers(0, 9), PIDS, st.integers(0, 5))
    held: Counter[int] = Counter()
    crowd: list[CallerConnection] = []
    for uid, doing, since, pid, right in draw(st.lists(one, max_size=3 * LIMITS.most)):
        whose = uid if right else -1
        if held[whose] < (LIMITS.per_uid if right else LIMITS.without_right) and len(crowd) < LIMITS.most:
            held[whose] += 1
            crowd.append(CallerConnection(len(crowd), uid, doing, float(since), pid, bool(right)))
    return crowd


def _let_in(crowd: list[CallerConnection], newcomer: Newcomer, limits: Limits = LIMITS) -> list[CallerConnection]:
    """The crowd after a newcomer, who says nothing."""
    gone = connection_to_end(crowd, newcomer, limits)
    kept = [caller for caller in crowd if caller is not gone]
    came = CallerConnection(_next(crowd), newcomer.uid, Doing.SILENT, 10.0, newcomer.pid, newcomer.has_right)
    return [*kept, came]


def _next(crowd: list[CallerConnection]) -> int:
    return max((caller.number for caller in crowd), default=0) + 1


NEWCOMERS = st.builds(Newcomer, UIDS, PIDS, st.sampled_from([True, True, True, False]))


def _gone(crowd: list[CallerConnection], newcomer: Newcomer) -> CallerConnection | None:
    """Whose connection ends; None, too, where the newcomer is turned away."""
    try:
        return connection_to_end(crowd, newcomer, LIMITS)
    except Unavailable:
        return None


def _held(crowd: list[CallerConnection], uid: int) -> int:
    return sum(caller.uid == uid and caller.has_right for caller in crowd)


def _of_process(crowd: list[CallerConnection], uid: int, pid: int) -> int:
    return sum((caller.uid, caller.pid, caller.has_right) == (uid, pid, True) for caller in crowd)


@given(_crowds(), NEWCOMERS)
def test_no_connection_that_is_being_answered_goes(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """What ends was not being answered, whether the newcomer is of the same user or of another.

    But for what is of a caller without a right, where the newcomer has one.
    """
    gone = _gone(crowd, newcomer)
    if gone is not None and (gone.has_right or not newcomer.has_right):
        assert gone.doing not in (Doing.BUSY, Doing.UNREAD)


@given(_crowds(), NEWCOMERS)
def test_who_has_no_right_ends_nobodys_who_has(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """Callers without a right keep to themselves, are few, and make room before anybody else has to."""
    gone = _gone(crowd, newcomer)
    if gone is not None and gone.has_right:
        assert newcomer.has_right
        assert gone.uid == newcomer.uid or all(caller.has_right for caller in crowd)
    try:
        after = _let_in(crowd, newcomer)
    except Unavailable:
        return
    assert sum(not caller.has_right for caller in after) <= LIMITS.without_right


@given(_crowds(), NEWCOMERS)
def test_the_limits_hold(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """After every newcomer there are at most as many as before where a limit was reached, and one more where not."""
    try:
        after = _let_in(crowd, newcomer)
    except Unavailable:
        return
    assert _held(after, newcomer.uid) <= LIMITS.per_uid
    assert len(after) <= LIMITS.most
    if newcomer.uid not in LIMITS.privileged or not newcomer.has_right:
        assert len(after) <= max(len(crowd), LIMITS.most - LIMITS.reserved)


@given(_crowds(), NEWCOMERS)
def test_nobody_goes_while_there_is_room(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """Below all limits nobody goes, and nobody is turned away."""
    if newcomer.has_right and len(crowd) < LIMITS.most - LIMITS.reserved:
        few = _of_process(crowd, newcomer.uid, newcomer.pid) < LIMITS.few
        if _held(crowd, newcomer.uid) < LIMITS.per_uid - (0 if few else LIMITS.for_few):
            assert connection_to_end(crowd, newcomer, LIMITS) is None


@given(_crowds(), NEWCOMERS)
def test_a_user_pays_with_their_own(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """A newcomer takes another user's place only if that one has more, or if the newcomer is privileged.

    And of those who could make room it is the one who has most.
    """
    gone = _gone(crowd, newcomer)
    if gone is None or not gone.has_right or gone.uid == newcomer.uid:
        return
    held = Counter(caller.uid for caller in crowd)
    assert held[newcomer.uid] < LIMITS.per_uid
    assert newcomer.uid in LIMITS.privileged or held[gone.uid] > held[newcomer.uid]
    assert held[gone.uid] == max(held[caller.uid] for caller in crowd if caller.doing.may_go)


@given(_crowds(), NEWCOMERS)
def test_a_process_pays_before_those_that_have_less(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """Where a user's own limit is met, the process that has most of those that could go gives one up."""
    gone = _gone(crowd, newcomer)
    if gone is None or not newcomer.has_right or not gone.has_right or gone.uid != newcomer.uid:
        return
    if len(crowd) < LIMITS.most - LIMITS.reserved:
        own = [caller for caller in crowd if caller.uid == gone.uid and caller.has_right and caller.doing.may_go]
        most = max(_of_process(crowd, caller.uid, caller.pid) for caller in own)
        assert _of_process(crowd, gone.uid, gone.pid) == most


@given(_crowds(), NEWCOMERS)
def test_the_least_useful_goes(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """Of one process, whoever goes is the least useful, and of those alike the oldest."""
    gone = _gone(crowd, newcomer)
    if gone is not None:
        alike = [caller for caller in crowd if (caller.uid, caller.has_right) == (gone.uid, gone.has_right)]
        alike = [caller for caller in alike if caller.pid == gone.pid or not gone.has_right]
        assert (gone.doing, gone.since) == min((caller.doing, caller.since) for caller in alike)


@given(_crowds(), NEWCOMERS)
def test_turned_away_only_where_nobody_may_go(crowd: list[CallerConnection], newcomer: Newcomer) -> None:
    """Only while all of the same process are busy; a privileged one below its limit only where everybody is."""
    try:
        connection_to_end(crowd, newcomer, LIMITS)
    except Unavailable:
        own = [caller for caller in crowd if caller.uid == newcomer.uid and caller.has_right == newcomer.has_right]
        assert all(not caller.doing.may_go for caller in own if caller.pid == newcomer.pid)
        if newcomer.uid in LIMITS.privileged and newcomer.has_right and len(own) < LIMITS.per_uid - LIMITS.for_few:
            assert all(not caller.doing.may_go and caller.has_right for caller in crowd)


@given(st.lists(UIDS, max_size=80), st.sampled_from([0, OWN]))
def test_privileged_users_always_get_in_beside_the_silent(silent: list[int], uid: int) -> None:
    """However many connections say nothing, whose they may be, root and the own user get in, and become busy."""
    crowd: list[CallerConnection] = []
    for of in silent:
        crowd = _let_in(crowd, Newcomer(of))
    for pid in range(LIMITS.per_uid):
        crowd = _let_in(crowd, Newcomer(uid, pid))
        crowd[-1] = CallerConnection(crowd[-1].number, uid, Doing.BUSY, 10.0, pid)
    for of in silent:
        if of != uid:
            crowd = _let_in(crowd, Newcomer(of))
    assert sum(caller.doing is Doing.BUSY for caller in crowd) == LIMITS.per_uid


@example([(Doing.BUSY, True)] * 200)
@given(st.lists(st.tuples(st.sampled_from(Doing), st.booleans()), max_size=200))
def test_one_process_keeps_no_other_out(said: list[tuple[Doing, bool]]) -> None:
    """However often a process of root's connects, and whatever it does, another one of root's gets in."""
    limits, crowd = Limits(), list[CallerConnection]()
    for doing, has_right in said:
        try:
            crowd = _let_in(crowd, Newcomer(0, 77, has_right), limits)
        except Unavailable:
            continue
        crowd[-1] = CallerConnection(crowd[-1].number, 0, doing, 10.0, 77, has_right)
    for _ in range(limits.few):
        crowd = _let_in(crowd, Newcomer(0, 78), limits)
        crowd[-1] = CallerConnection(crowd[-1].number, 0, Doing.BUSY, 10.0, 78)


def test_a_place_is_kept_for_the_privileged() -> None:
    """Though all others are busy, at their limit, root and the own user get in; the others' newcomer does not."""
    crowd = [CallerConnection(number, 1000 + number % 3, Doing.BUSY, 0.0) for number in range(9)]
    with pytest.raises(Unavailable, match="9 connections are open"):
        connection_to_end(crowd, Newcomer(1003), LIMITS)
    assert connection_to_end(crowd, Newcomer(0), LIMITS) is None
    assert connection_to_end(crowd, Newcomer(OWN), LIMITS) is None


def test_those_without_a_right_make_room_for_each_other_alone() -> None:
    """Their places are full: the silent one of who has most of them goes, and if none may go, nobody does."""
    doing = (Doing.SILENT, Doing.SILENT, Doing.BUSY)
    crowd = [CallerConnection(n, 1000 + n // 2, one, float(n), 1, has_right=False) for n, one in enumerate(doing)]
    newcomer = Newcomer(1003, 1, has_right=False)
    assert connection_to_end(crowd, newcomer, LIMITS) is crowd[0]
    busy = [CallerConnection(n, 1000, Doing.BUSY, 0.0, 1, has_right=False) for n in range(LIMITS.without_right)]
    with pytest.raises(Unavailable, match="3 connections of callers without a role are open"):
        connection_to_end(busy, newcomer, LIMITS)


def test_who_has_all_of_theirs_busy_is_told_whose_they_are() -> None:
    """A user who is turned away by the limit of one user is named with it."""
    crowd = [CallerConnection(number, 1000, Doing.BUSY, 0.0) for number in range(5)]
    with pytest.raises(Unavailable, match="busy: 5 connections of uid 1000 are open"):
        connection_to_end(crowd, Newcomer(1000, 9), LIMITS)


def test_what_may_last() -> None:
    """A user has so many requests that go on for long, and all but root and the own user so many together."""
    assert may_last(0, {0: 2, 1000: 4}, LIMITS)
    assert not may_last(0, {0: 3}, LIMITS)
    assert may_last(1000, {1000: 2, 1001: 1, 0: 3, OWN: 3}, LIMITS)
    assert not may_last(1000, {1000: 3}, LIMITS)
    assert not may_last(1002, {1000: 3, 1001: 1}, LIMITS)


@pytest.mark.parametrize("doing", list(Doing))
def test_deadlines(doing: Doing) -> None:
    """Asking and reading have their deadlines; whoever waits for an answer has none."""
    deadline = {Doing.SILENT: 10.0, Doing.ASKING: 10.0, Doing.UNREAD: 60.0}.get(doing)
    caller = CallerConnection(1, 0, doing, 100.0)
    if deadline is None:
        assert not is_overdue(caller, 1e9, Deadlines())
    else:
        assert not is_overdue(caller, 100.0 + deadline - 0.1, Deadlines())
        assert is_overdue(caller, 100.0 + deadline, Deadlines())
