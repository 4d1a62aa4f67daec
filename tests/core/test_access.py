"""Who may use the control socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.access import OVERFLOW_UID, Principal, admit
from supervisor.errors import NotPermitted

UIDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("uid", [0, 1000])
def test_root_and_the_owner_pass(uid: int) -> None:
    """Root and the supervisor's own user are let in, from another pid namespace too."""
    admit(Principal(uid=uid, gid=1, pid=0), own_uid=1000)


@given(uid=UIDS, own_uid=UIDS)
def test_nobody_else_passes(uid: int, own_uid: int) -> None:
    """Whoever is neither root nor the owner is refused, and a user that cannot be told apart always is."""
    if uid in (0, own_uid) and uid != OVERFLOW_UID:
        return
    with pytest.raises(NotPermitted) as caught:
        admit(Principal(uid=uid, gid=own_uid, pid=1), own_uid=own_uid)
    assert caught.value.code == "not-permitted"


def test_an_unmapped_user_is_nobody_even_to_itself() -> None:
    """The overflow uid stands for any unmapped user, so it does not pass even where the supervisor has it too."""
    with pytest.raises(NotPermitted):
        admit(Principal(uid=65534, gid=0, pid=1), own_uid=65534)


def test_the_refusal_names_both() -> None:
    """A refusal says who asked and who may."""
    with pytest.raises(NotPermitted, match=r"uid 1001, pid 42 may not .* only root and uid 1000 may"):
        admit(Principal(uid=1001, gid=0, pid=42), own_uid=1000)
