"""Whether a release was changed in place, on a real disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillup.host import fingerprint as module
from stillup.host.fingerprint import fingerprint


@pytest.fixture
def release(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "main.py").write_text("one")
    (tmp_path / "pkg" / "inner.py").write_text("two")
    return tmp_path


def code_in(directory: Path) -> None:
    directory.mkdir()
    (directory / "main.py").touch()


CHANGES: dict[str, Callable[[Path], object]] = {
    "another size": lambda at: (at / "main.py").write_text("longer"),
    "another time": lambda at: os.utime(at / "pkg" / "inner.py", ns=(1, 1)),
    "added": lambda at: (at / "pkg" / "new.py").touch(),
    "removed": lambda at: (at / "pkg" / "inner.py").unlink(),
    "moved": lambda at: (at / "pkg" / "inner.py").rename(at / "inner.py"),
    "native code": lambda at: (at / "fast.so").touch(),
}
NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda at: at,
    "data": lambda at: (at / "db.sqlite").write_text("rows"),
    "bytecode": lambda at: code_in(at / "__pycache__"),
    "hidden": lambda at: code_in(at / ".git"),
    "a link out of it": lambda at: (at / "loop").symlink_to(at),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_code_is_seen(release: Path, change: Callable[[Path], object]) -> None:
    """A file of code that is not as it was makes another fingerprint."""
    before = fingerprint(str(release))
    change(release)
    assert fingerprint(str(release)) != before


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_what_is_no_code_changes_nothing(release: Path, change: Callable[[Path], object]) -> None:
    """What a service writes while it runs makes no other release of it."""
    before = fingerprint(str(release))
    change(release)
    assert fingerprint(str(release)) == before


def test_it_does_not_depend_on_where_it_stands(release: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same release, moved, is the same."""
    before = fingerprint(str(release))
    there = release.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    assert fingerprint(str(there)) == before


def test_what_cannot_be_read_is_absent(tmp_path: Path) -> None:
    """A directory that is gone looks like an empty one, and a name that is no UTF-8 is a name."""
    assert fingerprint(str(tmp_path / "gone")) == fingerprint(str(tmp_path))
    (tmp_path / os.fsdecode(b"\xff.py")).touch()
    assert fingerprint(str(tmp_path)) != fingerprint(str(tmp_path / "gone"))


def test_an_entry_that_fails_is_absent(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of which the file system does not even say what it is does not keep the others from being looked at."""

    class Broken:
        name = "main.py"

        def fails(self, **_: object) -> bool:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        is_dir = stat = fails

    without = fingerprint(str(release))
    entries = module._entries
    monkeypatch.setattr(module, "_entries", lambda path, most: [Broken(), *entries(path, most)])
    assert fingerprint(str(release)) == without


def test_it_ends(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is far too large is looked at as far as the limit goes."""
    monkeypatch.setattr(module, "MOST", 2)
    before = fingerprint(str(release))
    (release / "pkg" / "new.py").touch()
    assert fingerprint(str(release)) == before


def test_a_directory_of_any_size_is_not_read_to_its_end(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app can make files faster than they are looked at: neither memory nor time is theirs to take."""
    read: list[os.DirEntry[str]] = []

    def entries() -> Iterator[os.DirEntry[str]]:
        with scandir(release) as found:
            entry = next(entry for entry in found if entry.name == "main.py")
        while True:
            read.append(entry)
            yield entry

    def endless(_: str) -> contextlib.AbstractContextManager[Iterator[os.DirEntry[str]]]:
        return contextlib.nullcontext(entries())

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", endless)
    monkeypatch.setattr(module, "READ", 1000)
    assert fingerprint(str(release)) == fingerprint(str(release))
    assert len(read) == 2000
