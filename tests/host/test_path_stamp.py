"""Whether a file, or what is in a directory, has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stillup.host.path_stamp import stamp


def volume(folder: Path, name: str, text: str) -> None:
    """Put a file there as Kubernetes does with a ConfigMap: a new directory, and ``..data`` replaced at once."""
    (folder / f"..{name}").mkdir()
    (folder / f"..{name}" / "settings").write_text(text)
    os.utime(folder / f"..{name}" / "settings", (1, 1))
    (folder / "..new").symlink_to(f"..{name}")
    (folder / "..new").rename(folder / "..data")
    if not (folder / "settings").is_symlink():
        (folder / "settings").symlink_to("..data/settings")


@pytest.mark.parametrize("what", ["", "settings"])
def test_a_volume_of_kubernetes(tmp_path: Path, what: str) -> None:
    """Another one is another, though its files have the same size and the same time."""
    volume(tmp_path, "first", "a")
    before = stamp(str(tmp_path / what))
    assert before == stamp(str(tmp_path / what))
    volume(tmp_path, "second", "b")
    assert stamp(str(tmp_path / what)) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("longer"),
        lambda file: os.utime(file, (1, 1)),
        lambda file: file.unlink(),
        lambda file: file.with_name("another").write_text("x"),
        lambda file: (file.unlink(), file.symlink_to("/etc/passwd")),
    ],
    ids=["size", "time", "removed", "another", "link"],
)
def test_what_is_a_change(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Of a file in a directory that is looked at."""
    file = tmp_path / "file"
    file.write_text("x")
    before = stamp(str(tmp_path))
    change(file)
    assert stamp(str(tmp_path)) != before


def test_what_is_not_there(tmp_path: Path) -> None:
    """Nothing can be said of it, as of a link that leads nowhere."""
    (tmp_path / "nowhere").symlink_to("x")
    for path in (tmp_path / "x", tmp_path / "nowhere", tmp_path):
        assert stamp(str(path)) == ()
