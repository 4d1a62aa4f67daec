"""The runtime directory and its lock."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stillup.errors import Unavailable
from stillup.host import accounts
from stillup.host.runtime_directory import Guest, claim
from tests.children import spawned

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from stillup.host.runtime_directory import claim
held = claim(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


TAKE = """
import os, sys
from stillup.errors import Unavailable
from stillup.host.runtime_directory import claim
for number in range(500):
    try:
        held = claim(sys.argv[1])
    except (Unavailable, FileNotFoundError):  # the directory itself comes and goes
        continue
    os.close(os.open(sys.argv[1] + ".held", os.O_CREAT | os.O_EXCL))
    os.unlink(sys.argv[1] + ".held")
    held.close()
"""


def lock_text(path: str) -> str:
    return Path(path, "lock").read_text(encoding="ascii")


def test_claim(tmp_path: Path) -> None:
    """A directory that is missing is made for us alone, with those above it, and its lock says who we are."""
    path = str(tmp_path / "run" / "app")
    directory = claim(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert directory.created
    assert directory.file("control.sock") == f"{path}/control.sock"
    assert lock_text(path) == f"{os.getpid()}\n"
    assert not os.get_inheritable(directory.lock)
    directory.close()


def test_close(tmp_path: Path) -> None:
    """At close the lock file goes, and the directory if it was made here and nothing else is in it."""
    path = str(tmp_path / "app")
    claim(path).close()
    assert not os.path.exists(path)
    directory = claim(path)
    Path(path, "kept").touch()
    directory.close()
    assert os.listdir(path) == ["kept"]


def test_directory_that_was_there(tmp_path: Path) -> None:
    """A directory that was there before, as systemd makes it, is used with the mode it has, and left there."""
    path = tmp_path / "app"
    path.mkdir(mode=0o755)
    directory = claim(str(path))
    assert not directory.created
    directory.close()
    assert os.listdir(path) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_second_claim(tmp_path: Path) -> None:
    """While another process holds the directory it is refused with that process's pid and the ways out."""
    path = str(tmp_path / "app")
    with spawned([sys.executable, "-c", HOLD, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match=rf"already \(pid {other.pid}\); 'stillup stop --runtime-dir {path}'"):
            claim(path)
        assert lock_text(path) == f"{other.pid}\n"
        other.kill()
    # Nobody tidied up after it: a lock file that nobody holds is no lock.
    assert lock_text(path) == f"{other.pid}\n"
    directory = claim(path)
    assert lock_text(path) == f"{os.getpid()}\n"
    directory.close()


def test_lock_of_our_own(tmp_path: Path) -> None:
    """Our own process cannot claim a directory twice either, and can again when it was closed."""
    path = str(tmp_path / "app")
    directory = claim(path)
    with pytest.raises(Unavailable, match=f"pid {os.getpid()}"):
        claim(path)
    directory.close()
    claim(path).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory(tmp_path: Path) -> None:
    """A directory that belongs to another user is refused, and nothing is put into it."""
    path = tmp_path / "app"
    path.mkdir(mode=0o755)
    os.chown(path, 1, 1)
    with pytest.raises(Unavailable, match="choose one with --runtime-dir"):
        claim(str(path))
    assert os.listdir(path) == []


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_directory_that_others_can_write_to(tmp_path: Path, mode: int) -> None:
    """A directory into which the group or everybody can write is refused, sticky or not."""
    path = tmp_path / "app"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(Unavailable, match=f"{path} is not a directory that only uid {os.geteuid()} can write to"):
        claim(str(path))
    assert os.listdir(path) == []


def test_parent_that_others_can_write_to(tmp_path: Path) -> None:
    """Where nobody chose the directory its parent must be ours alone as well; a chosen one may be where it is."""
    tmp_path.chmod(0o1777)
    path = str(tmp_path / "app")
    with pytest.raises(Unavailable, match=f"{tmp_path} is not a directory that only uid"):
        claim(path, chosen=False)
    claim(path, chosen=True).close()
    tmp_path.chmod(0o700)
    claim(path, chosen=False).close()


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_parent_in_which_others_can_put_another(tmp_path: Path, mode: int) -> None:
    """A chosen one is refused where others can rename it, and so put theirs in its place; nothing is left of it."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(Unavailable, match=rf"others can write to {place}, .* \(mode {mode:04o}\)"):
        claim(str(place / "app"))


def test_parent_of_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a group can write to is refused, be we in it or not, unless it is one of our own."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o775)
    assert place.stat().st_gid == os.getegid()
    with monkeypatch.context() as patch:
        patch.setattr(accounts, "is_own_group", lambda _: False)
        with pytest.raises(Unavailable, match=r"others can write to"):
            claim(str(place / "app"))
        patch.setattr(accounts, "is_own_group", lambda gid: gid == os.getegid())
        claim(str(place / "app")).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_parent_of_somebody_else(tmp_path: Path, mode: int) -> None:
    """Whoever has the parent can put another in our place, whatever its mode is."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    os.chown(place, 12345, 0)
    with pytest.raises(Unavailable, match=rf"{place} is of uid 12345, who can put another directory in the place"):
        claim(str(place / "app"))


TEAM = Guest(frozenset({12345}))
NO_ID = 2**32 - 1
OTHERS = Guest(frozenset({12346}))
SOMEBODY = Guest(frozenset({12347, 12345}), uid=12345)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that anybody gets to, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_let_through(open_place: Path) -> None:
    """One that was made for us lets others get to its files when they are to, and shows them no names."""
    directory = claim(str(open_place / "app"))
    for guests, mode in (((TEAM,), 0o711), ((), 0o700), ((), 0o700)):
        directory.let_through(guests)
        assert mode_of(directory.path) == mode
    directory.close()


def test_let_through_one_that_was_there(open_place: Path) -> None:
    """One that somebody else has made keeps its mode; where that keeps others out the start says so."""
    path = open_place / "app"
    path.mkdir(mode=0o750)
    directory = claim(str(path))
    directory.let_through(())
    with pytest.raises(Unavailable, match=r"its mode is 0750: make it 0711 \(systemd: RuntimeDirectoryMode=0711\)"):
        directory.let_through((TEAM,))
    path.chmod(0o755)
    directory.let_through((TEAM,))
    assert mode_of(path) == 0o755
    directory.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to a group that it is not in")
@pytest.mark.parametrize("made", [True, False])
def test_let_one_group_through(open_place: Path, made: bool) -> None:
    """What 'stillup doctor' advises, g+x and that group, is enough for that group, and for no other."""
    path = open_place / "app"
    if not made:
        path.mkdir(mode=0o700)
    directory = claim(str(path))
    os.chown(path, -1, 12345)
    path.chmod(0o710)
    directory.let_through((TEAM, SOMEBODY))
    assert mode_of(path) == 0o710
    if made:
        directory.let_through((TEAM, OTHERS))
        assert mode_of(path) == 0o711
    else:
        with pytest.raises(Unavailable, match=r"group 12346 is to get to .* and its mode is 0710"):
            directory.let_through((TEAM, OTHERS))
    directory.close()


def test_above_it_nobody_gets_through(open_place: Path) -> None:
    """Where a directory further up keeps others out, be it by a link that leads there, the start says which."""
    closed = open_place / "closed"
    (closed / "between").mkdir(parents=True)
    closed.chmod(0o700)
    (open_place / "link").symlink_to(closed)
    for path in (closed / "between" / "app", open_place / "link" / "app"):
        directory = claim(str(path))
        directory.let_through(())
        message = rf"to get to {path}, and the mode of {closed} is 0700: chmod o\+x {closed}, or choose another"
        with pytest.raises(Unavailable, match=message):
            directory.let_through((SOMEBODY,))
        directory.let_through((Guest(frozenset({0}), uid=0), Guest(frozenset(), uid=os.geteuid())))
        directory.close()


def test_above_it_is_what_we_made(open_place: Path) -> None:
    """Those above it that were made with it let through whoever is to get there, whatever the umask is."""
    before = os.umask(0o077)
    try:
        directory = claim(str(open_place / "a" / "b" / "app"))
    finally:
        os.umask(before)
    assert mode_of(open_place / "a" / "b") == 0o700
    directory.let_through(())
    assert mode_of(open_place / "a" / "b") == 0o700
    directory.let_through((TEAM,))
    assert (mode_of(open_place / "a" / "b"), mode_of(open_place / "a")) == (0o711, 0o711)
    directory.close()


def test_a_list_says_more_than_a_mode(open_place: Path) -> None:
    """Where an access control list says who passes, what the mode says is not taken for the whole truth."""
    closed = open_place / "closed"
    closed.mkdir(mode=0o700)
    # Version 2, then tag, permissions and id of each: user::rwx group::--- group:12345:--x mask::--x other::---
    entries = [(1, 7, NO_ID), (4, 0, NO_ID), (8, 1, 12345), (16, 1, NO_ID), (32, 0, NO_ID)]
    try:
        os.setxattr(
            closed,
            "system.posix_acl_access",
            struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries),
        )
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    directory = claim(str(closed / "app"))
    directory.let_through((TEAM,))
    directory.close()


def test_looking_at_the_way_changes_nothing(open_place: Path) -> None:
    """Whether others would get through is seen with no mode changed."""
    directory = claim(str(open_place / "app"))
    directory.check_way((TEAM,))
    assert mode_of(directory.path) == 0o700
    directory.close()


def test_no_directory(tmp_path: Path) -> None:
    """A file, or a symlink even to a directory of ours, is refused; it could be somebody else's tomorrow."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch(mode=0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "directory")
    for path in (file, link):
        with pytest.raises(Unavailable, match=f"{path} is not a directory"):
            claim(str(path))
    assert os.listdir(tmp_path / "directory") == []


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """Where the directory cannot be made the refusal says why."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"cannot make the runtime directory .*: .*; choose one with --runtime-dir"):
        claim(str(tmp_path / "file" / "app"))


def test_lock_that_is_a_symlink(tmp_path: Path) -> None:
    """A lock that is a symlink is not followed: what it names is neither locked nor written."""
    path, target = tmp_path / "app", tmp_path / "target"
    path.mkdir()
    target.write_text("precious")
    (path / "lock").symlink_to(target)
    with pytest.raises(Unavailable, match="cannot open"):
        claim(str(path))
    assert target.read_text() == "precious"


def test_stale_lock(tmp_path: Path) -> None:
    """A lock file that nobody holds is taken over, and says nothing but who has it now."""
    path = tmp_path / "app"
    path.mkdir(mode=0o700)
    (path / "lock").write_text("12345678901234567890\n")
    directory = claim(str(path))
    assert lock_text(str(path)) == f"{os.getpid()}\n"
    directory.close()


def test_one_supervisor_at_a_time(tmp_path: Path) -> None:
    """Of several processes that claim a directory and give it up, over and over, never two have it together."""
    path = str(tmp_path / "app")
    with ExitStack() as stack:
        takers = [stack.enter_context(spawned([sys.executable, "-c", TAKE, path], cwd=ROOT)) for _ in range(3)]
        assert [taker.wait(60) for taker in takers] == [0, 0, 0]
