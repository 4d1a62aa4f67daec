"""The configuration file: what is read, and whether the workers' user could have written it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.host import config_file
from stillup.host.accounts import Account
from stillup.host.config_file import read, read_again, written_by
from tests.system.other_user import open_folder

pytestmark = pytest.mark.usefixtures("no_leak")

APP = Account(12345, 12346, (12347,))


@pytest.fixture
def path() -> Iterator[Path]:
    with open_folder() as folder:
        (folder / "shop").mkdir(mode=0o755)
        file = folder / "shop" / "stillup.toml"
        file.write_text("workers = 1\n")
        file.chmod(0o644)
        yield file


@pytest.mark.parametrize("named", [True, False])
def test_read(path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    """A file of bounded size, through links; a directory is an error."""
    link = path.with_name("link.toml")
    link.symlink_to(path)
    assert read(str(link), named=named) == "workers = 1\n"
    monkeypatch.setattr(config_file, "MOST", 12)
    assert read(str(path), named=named) == "workers = 1\n"
    monkeypatch.setattr(config_file, "MOST", 11)
    with pytest.raises(OSError, match="larger than"):
        read(str(path), named=named)
    for name, why in ((".", "directory|no regular file"), ("none", "No such file")):
        with pytest.raises(OSError, match=why):
            read(str(path.parent / name), named=named)


def test_a_pipe_is_read_when_it_is_named(path: Path) -> None:
    """As a shell's process substitution; one that only lies there is not waited for."""
    reading, writing = os.pipe()
    os.write(writing, b"workers = 2\n")
    os.close(writing)
    assert read(f"/proc/self/fd/{reading}", named=True) == "workers = 2\n"
    os.close(reading)
    os.mkfifo(path.with_name("fifo"))
    with pytest.raises(OSError, match="no regular file"):
        read(str(path.with_name("fifo")), named=False)


def test_root_alone_can_write_it(path: Path) -> None:
    """As it is installed: nobody is named."""
    assert written_by(str(path), APP) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("level", ["", "shop", "shop/stillup.toml"])
@pytest.mark.parametrize(
    ("uid", "gid", "mode"), [(12345, 0, 0o700), (0, 12346, 0o775), (0, 12347, 0o775), (0, 0, 0o757)]
)
def test_the_workers_user_can(path: Path, level: str, uid: int, gid: int, mode: int) -> None:
    """By owner, by a group of theirs, or as everybody can: of the file, or of a level above it."""
    where = path.parents[1] / level
    os.chown(where, uid, gid)
    where.chmod(mode)
    assert written_by(str(path), APP) == str(where)
    os.chown(where, 0, APP.gid if mode & 0o002 else 0)
    assert written_by(str(path), APP) == "", "the bits of somebody else"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_sticky_directories_and_links(path: Path) -> None:
    """In a sticky one each name is its owner's; where a link leads counts, and so does whose it is."""
    path.parent.chmod(0o1777)
    assert written_by(str(path), APP) == ""
    os.chown(path.parent, APP.uid, 0)
    assert written_by(str(path), APP) == str(path.parent)
    os.chown(path.parent, 0, 0)
    os.chown(path, APP.uid, 0)
    assert written_by(str(path), APP) == str(path)
    link = path.parents[1] / "link.toml"
    link.symlink_to("shop/stillup.toml")
    assert written_by(str(link), APP) == str(path)
    os.chown(path, 0, 0)
    assert written_by(str(link), APP) == ""
    os.chown(link, APP.uid, 0, follow_symlinks=False)
    assert written_by(str(link), APP) == str(link)


def test_read_again(path: Path) -> None:
    """Through links; nobody else could have written it."""
    link = path.with_name("link.toml")
    link.symlink_to("stillup.toml")
    assert read_again(str(path)) == read_again(str(link)) == ("workers = 1\n", "")


def test_who_could_have_written_what_is_read_again(path: Path) -> None:
    """Whoever may write to the file, or exchange a level of either way; it is read all the same."""
    path.chmod(0o666)
    text, hazard = read_again(str(path))
    assert (text, "mode 0666" in hazard) == ("workers = 1\n", True)
    path.chmod(0o644)
    os.chown(path, APP.uid, -1)
    assert "is of uid 12345" in read_again(str(path))[1]
    os.chown(path, 0, -1)
    path.parent.chmod(0o777)
    assert "others can write to" in read_again(str(path))[1]
    link = path.with_name("link.toml")
    link.symlink_to("stillup.toml")
    assert read_again(str(link)) == ("", read_again(str(path))[1])
    path.parent.chmod(0o1777)
    os.chown(link, APP.uid, -1, follow_symlinks=False)
    text, hazard = read_again(str(link))
    assert (text, "is a symbolic link and belongs to uid 12345" in hazard) == ("", True)
    path.parent.chmod(0o755)


def test_what_cannot_be_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone, no file, a FIFO that nobody writes to, links in a circle, too large: an error, at once."""
    folder = path.parent
    os.mkfifo(folder / "fifo")
    (folder / "circle").symlink_to("circle")
    for name, why in (
        ("none", "No such file"),
        ("fifo", "no regular file"),
        (".", "no regular file"),
        ("circle", "symbolic links"),
    ):
        with pytest.raises(OSError, match=why):
            read_again(str(folder / name))
    monkeypatch.setattr(config_file, "MOST", 11)
    with pytest.raises(OSError, match="larger than"):
        read_again(str(path))
