"""The way to a directory: who else could put another one in its place, at every level."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.errors import Unavailable
from stillup.host import accounts, path_walk
from stillup.host.path_walk import walk
from stillup.host.runtime_directory import claim
from tests.system.other_user import open_folder

pytestmark = pytest.mark.usefixtures("no_leak")

EVE = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose levels are all root's or ours."""
    with open_folder() as folder:
        yield folder


def hazards(path: Path | str) -> list[tuple[str, int | None]]:
    with contextlib.closing(walk(str(path))) as way:
        return [(hazard.why, hazard.uid) for hazard in way.hazards]


def refusal(path: Path) -> str:
    with pytest.raises(Unavailable) as refused:
        claim(str(path))
    return str(refused.value)


@pytest.mark.parametrize("below", ["", "run", "run/between"])
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o775])
def test_a_level_that_others_can_write_to(place: Path, below: str, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far up it is, a start is refused that names it, and nothing is made below it."""
    monkeypatch.setattr(accounts, "is_own_group", lambda _: False)
    level = place / "level"
    level.mkdir()
    level.chmod(mode)
    said = refusal(level / below / "app")
    assert f"others can write to {level}, and so put a directory of their own in the place of ours" in said
    assert f"(mode {mode:04o}): take that from them: choose another --runtime-dir" in said
    assert not list(level.iterdir())


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_a_level_of_somebody_else(place: Path, mode: int) -> None:
    """Its owner can rename what is in it: a start is refused also where what is below is root's."""
    level = place / "level"
    (level / "of-root" / "run").mkdir(parents=True)
    level.chmod(mode)
    os.chown(level, EVE, EVE)
    said = refusal(level / "of-root" / "run" / "app")
    assert f"{level} is of uid {EVE}, who can put another directory in the place of ours: choose another" in said
    assert not list((level / "of-root" / "run").iterdir())


@needs_root
def test_a_link_of_somebody_else(place: Path) -> None:
    """Where it leads was another's choice, be it in a directory that only root can write to; a link of ours is none."""
    (place / "run").mkdir()
    for uid in (EVE, 0):
        link = place / f"link-{uid}"
        link.symlink_to("run")
        os.chown(link, uid, uid, follow_symlinks=False)
    assert f"{place}/link-{EVE} is a symbolic link and belongs to uid {EVE}" in refusal(place / f"link-{EVE}" / "app")
    assert not list((place / "run").iterdir())
    claim(str(place / "link-0" / "app")).close()


@needs_root
def test_in_a_sticky_directory_each_name_is_its_owners(place: Path) -> None:
    """As in /tmp: what root or we have made there is ours; what another has made, directory or link, is not."""
    place.chmod(0o1777)
    for name, uid in (("own", 0), ("eve", EVE)):
        (place / name / "run").mkdir(parents=True)
        os.chown(place / name, uid, uid)
    claim(str(place / "own" / "run" / "app")).close()
    claim(str(place / "app")).close()
    assert {uid for _, uid in hazards(place / "eve" / "run")} == {EVE}
    assert f"uid {EVE}" in refusal(place / "eve" / "run" / "app")


def test_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hazard is in /tmp, in /run, by root's links as /var/run, or in a home of its user's own group."""
    for path in ("/", "/tmp", "/run", "/var/run", "/dev/shm", "/usr/bin"):
        assert not hazards(path), path
    monkeypatch.setattr(accounts, "is_own_group", lambda gid: gid == os.getegid())
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o775)
    (tmp_path / "home" / "run").mkdir()
    assert not hazards(tmp_path / "home" / "run")


def test_ways_of_saying_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, with dots, doubled slashes and links, also relative ones and to the root: the kernel's own answer."""
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "up").symlink_to("../a/./b")
    (place / "root").symlink_to("/")
    (place / "a" / "absolute").symlink_to(place / "a")
    monkeypatch.chdir(place / "a")
    for path in ("b", "./b/", "up", "../a//b", "absolute/up", "up/../absolute/b", f"../root{place}/a/b"):
        with contextlib.closing(walk(path)) as way:
            assert os.path.samestat(way.status, os.stat(path)), path
            assert os.path.samestat(way.status, os.stat(place / "a" / "b"))


def test_no_way(place: Path) -> None:
    """Links in a circle, a file in the middle, and nothing at all: an OSError, as of any other look-up."""
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    (place / "file").touch()
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "fifo")
    for name in ("one/x", "file/x", "file", "fifo", "fifo/x", "dangling/x", "nothing"):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory|No such file"):
            walk(str(place / name))


def test_what_is_made_is_said(place: Path) -> None:
    """Missing levels are made with the mode that is asked for; at a place where they vanish again there is an end."""
    with contextlib.closing(walk(str(place / "a" / "b"), make=0o750)) as way:
        assert way.made == [str(place / "a"), str(place / "a" / "b")]
        assert way.status.st_mode & 0o777 == 0o750
    with contextlib.closing(walk(str(place / "a" / "b"), make=0o750)) as way:
        assert way.made == []


def test_a_level_that_vanishes_again_and_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes a level as soon as it is made keeps us busy for a few attempts, and no longer."""
    mkdir, attempts = os.mkdir, []

    def made_and_gone(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        attempts.append(name)

    monkeypatch.setattr(os, "mkdir", made_and_gone)
    with pytest.raises(FileNotFoundError):
        walk(str(place / "level" / "app"), make=0o755)
    assert len(attempts) == path_walk.MOST_ATTEMPTS


def test_the_owner_of_the_root_directory_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user namespace root may have no number; whoever owns / could exchange everything anyhow."""
    with tempfile.TemporaryDirectory() as name:
        root = os.stat("/")
        monkeypatch.setattr(os, "geteuid", lambda: EVE)
        if os.getuid() == root.st_uid:
            assert not hazards(name)
        assert path_walk.trusted() == {0, EVE, root.st_uid}
