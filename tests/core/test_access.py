"""Who may do what on the control socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.access import OVERFLOW_UID, Principal, Role, Rules, admit, role_of
from supervisor.errors import NotPermitted

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
        given_roles = [rules.uids[uid], *(rules.gids[gid] for gid in gids)]
        assert held in given_roles
        assert all(held.covers(role) for role in given_roles)


def test_an_unmapped_user_is_nobody_even_to_itself() -> None:
    """The overflow uid stands for any unmapped user, so it has no role even where the supervisor has it too."""
    rules = Rules({OVERFLOW_UID: Role.ADMIN}, {0: Role.ADMIN})
    assert role_of(Principal(uid=OVERFLOW_UID, gid=0, pid=1), rules, own_uid=OVERFLOW_UID) is Role.NONE


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
    """A refusal says who asked, what he is and what he had to be."""
    with pytest.raises(NotPermitted, match=r"uid 1001, pid 42 has the role 'viewer'; this needs 'operator'"):
        admit(Principal(uid=1001, gid=0, pid=42), Role.VIEWER, Role.OPERATOR)
    with pytest.raises(NotPermitted, match=r"uid 1001, pid 42 has no role here; this needs 'viewer'"):
        admit(Principal(uid=1001, gid=0, pid=42), Role.NONE, Role.VIEWER)
