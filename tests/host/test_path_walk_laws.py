"""The law of the walk: where no hazard is seen, nobody else can put another directory in the place of a level."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.host.path_walk import walk
from tests.system.other_user import open_folder

EVE = 12345
LEVELS = st.tuples(
    st.sampled_from([0, 0, EVE]),
    st.sampled_from([0, EVE]),
    st.sampled_from([0o700, 0o711, 0o755, 0o775, 0o757, 0o777, 0o1777, 0o1775, 0o555]),
)
"""Owner, group and mode of a directory."""


@contextlib.contextmanager
def being_eve() -> Iterator[None]:
    """With Eve's user and group, and none of ours."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(EVE)
    os.seteuid(EVE)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def can_exchange(path: Path) -> bool:
    """Whether Eve can have the name stand for something else, having made the modes what Eve may make them."""
    with being_eve():
        for level in reversed((path, *path.parents)):
            with contextlib.suppress(OSError):
                level.chmod(0o777)
        try:
            path.rename(f"{path}.away")
        except OSError:
            return False
    path.with_name(f"{path.name}.away").rename(path)
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and somebody else")
@given(levels=st.lists(LEVELS, min_size=1, max_size=4), links=st.lists(st.sampled_from([None, 0, EVE]), max_size=4))
def test_no_hazard_no_exchange(levels: list[tuple[int, int, int]], links: list[int | None]) -> None:
    """Whatever the owners, groups and modes of the levels are, and be some of them behind links."""
    with open_folder() as folder:
        path = folder
        made: list[Path] = []
        for number, (_, _, _) in enumerate(levels):
            real = path / f"d{number}"
            real.mkdir()
            made.append(real)
            owner = links[number] if number < len(links) else None
            if owner is not None:
                link = path / f"l{number}"
                link.symlink_to(f"d{number}")
                os.chown(link, owner, owner, follow_symlinks=False)
                made.append(link)
                path = link
            else:
                path = real
        named = path / "ours"
        named.mkdir(mode=0o700)
        for number, (uid, gid, mode) in enumerate(levels):
            real = next(one for one in made if one.name == f"d{number}").resolve()
            os.chown(real, uid, gid)
            real.chmod(mode)
        with contextlib.closing(walk(str(path))) as way:
            hazards = way.hazards_inside
            assert os.path.samestat(way.status, path.stat())
        if not hazards:
            assert not [str(level) for level in (*made, named) if can_exchange(level)]
        assert bool(hazards) >= any(uid == EVE for uid, _, _ in levels)
        for real in made:
            if not real.is_symlink():
                os.chown(real, 0, 0)
                real.chmod(0o700)
