"""Who may do what on the control socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.access import ANYBODY, OVERFLOW_UID, Principal, Role, Rules, admit, role_of
from stillup.errors import NotPermitted, Refused

UIDS = st.integers(0, 2**32 - 1)
ROLES = st.sampled_from(Role)


@pytest.mark.parametrize("uid", [0, 1000])
def test_root_and_the_owner_are_admin(uid: int) -> None:
    """Root and the supervisor's own user may do everything, from another pid namespace too."""
    assert role_of(Principal(uid=uid, gid=1, pid=0), Rules(), own_uid=1000) is Role.ADMIN


@given(uid=UIDS, own_uid=UIDS)
def test_nobody_else_has_a_role_unless_a_rule_says_so(uid: int, own_uid: int) -> None:
    """Deny is the default."""
    expected = Role.ADMIN if uid in (0, own_uid) and uid != OVERFLOW_UID else Role.NONE
    assert role_of(Principal(uid=uid, gid=own_uid, pid=1), Rules(), own_uid=own_uid) is expected


@given(uid=UIDS, gids=st.sets(UIDS, min_size=1), rules=st.builds(Rules, st.dictionaries(UIDS, ROLES)), data=st.data())
def test_the_highest_role_of_uid_and_groups_counts(uid: int, gids: set[int], rules: Rules, data: st.DataObject) -> None:
    """The primary group and every supplementary one count like the uid."""
    rules = Rules({**rules.uids, uid: data.draw(ROLES)}, {gid: data.draw(ROLES) for gid in gids})
    primary, *others = gids
    who = Principal(uid=uid, gid=primary, pid=1, groups=frozenset(others))
    held = role_of(who, rules, own_uid=uid + 1)
    if uid == OVERFLOW_UID:
        assert held is Role.NONE
    elif uid != 0:
        given_roles = [rules.uids[uid], *(rules.gids[gid] for gid in gids - {OVERFLOW_UID})]
        assert held in given_roles
        assert all(held.covers(role) for role in given_roles)


def test_an_unmapped_user_is_nobody_even_to_itself() -> None:
    """The overflow uid stands for any unmapped user, so it has no role even where the supervisor has it too."""
    rules = Rules({OVERFLOW_UID: Role.ADMIN}, {0: Role.ADMIN})
    assert role_of(Principal(uid=OVERFLOW_UID, gid=0, pid=1), rules, own_uid=OVERFLOW_UID) is Role.NONE


@given(uid=UIDS, gid=UIDS, groups=st.frozensets(UIDS))
def test_no_rule_is_about_the_overflow_number(uid: int, gid: int, groups: frozenset[int]) -> None:
    """No caller gets a role by the number that stands for any user, or any group, that is not mapped."""
    rules = Rules({OVERFLOW_UID: Role.ADMIN}, {OVERFLOW_UID: Role.ADMIN})
    who = Principal(uid=uid, gid=gid, pid=1, groups=groups | {OVERFLOW_UID})
    assert role_of(who, rules, own_uid=0) is (Role.NONE if uid != 0 else Role.ADMIN)


def test_whoever_comes_over_tcp_is_nobody() -> None:
    """The kernel says nothing of them, so they have no role."""
    assert role_of(ANYBODY, Rules({0: Role.ADMIN}, {0: Role.ADMIN}), own_uid=0) is Role.NONE


@given(uid=UIDS, needed=ROLES, held=ROLES)
def test_workers_may_do_nothing(uid: int, needed: Role, held: Role) -> None:
    """A worker has no role whatever its uid, and is refused even what needs none."""
    who = Principal(uid=uid, gid=0, pid=7, for_worker=True)
    assert role_of(who, Rules({uid: Role.ADMIN}), own_uid=uid) is Role.NONE
    with pytest.raises(NotPermitted, match=r"pid 7 is a worker of this service or was started by one"):
        admit(who, held, needed)


@given(needed=ROLES)
def test_a_caller_that_was_not_seen_may_only_look(needed: Role) -> None:
    """Root that could not be looked at might be a worker; the reason is told."""
    who = Principal(uid=0, gid=0, pid=7, unseen="Too many open files")
    if needed in (Role.NONE, Role.VIEWER):
        admit(who, Role.ADMIN, needed)
        return
    with pytest.raises(Refused, match=r"cannot be seen whether uid 0, pid 7 is .*: Too many open files") as caught:
        admit(who, Role.ADMIN, needed)
    assert caught.value.code == "unavailable"
    with pytest.raises(NotPermitted):
        admit(who, Role.VIEWER, needed)


@given(gids=st.dictionaries(st.integers(0, 3), ROLES), gid=st.integers(0, 3))
def test_observers_are_viewers_at_least(gids: dict[int, Role], gid: int) -> None:
    """A group that is let look keeps a higher role that it has, and no other user gets anything."""
    before, after = Rules({}, gids), Rules({}, gids).letting_view(gid)
    for other in range(4):
        had, has = before.gids.get(other, Role.NONE), after.gids.get(other, Role.NONE)
        assert has is (max(had, Role.VIEWER, key=tuple(Role).index) if other == gid else had)


@given(held=ROLES, needed=ROLES)
def test_a_role_includes_those_before_it(held: Role, needed: Role) -> None:
    """Who may stop the service may also look at it; not the other way round."""
    who = Principal(uid=1001, gid=0, pid=42)
    if tuple(Role).index(held) >= tuple(Role).index(needed):
        admit(who, held, needed)
    else:
        with pytest.raises(NotPermitted) as caught:
            admit(who, held, needed)
        assert caught.value.code == "not-permitted"


def test_the_refusal_says_what_is_missing() -> None:
    """A refusal says who asked, which role they have and which is needed."""
    with pytest.raises(NotPermitted, match=r"uid 1001, pid 42 has the role 'viewer'; this needs 'operator'"):
        admit(Principal(uid=1001, gid=0, pid=42), Role.VIEWER, Role.OPERATOR)
    with pytest.raises(NotPermitted, match=r"uid 1001, pid 42 has no role here; this needs 'viewer'"):
        admit(Principal(uid=1001, gid=0, pid=42), Role.NONE, Role.VIEWER)
    with pytest.raises(NotPermitted, match=r": start the supervisor with --operator uid:1001, or with one"):
        admit(Principal(uid=1001, gid=0, pid=42), Role.NONE, Role.OPERATOR)
    with pytest.raises(NotPermitted, match=r"that uid may be anybody's"):
        admit(Principal(uid=OVERFLOW_UID, gid=0, pid=42), Role.NONE, Role.OPERATOR)
