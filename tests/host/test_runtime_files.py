"""Files in the runtime directory: whole or not there, and never another's."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stillup.errors import Unavailable
from stillup.host import runtime_directory
from stillup.host.runtime_directory import RuntimeDirectory, claim, read_file

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RuntimeDirectory]:
    """A runtime directory of ours."""
    held = claim(str(tmp_path / "rt"))
    yield held
    held.close()


def files(directory: RuntimeDirectory) -> list[str]:
    return sorted(os.listdir(directory.path))


def test_replace(directory: RuntimeDirectory) -> None:
    """A file is what was put last, for nobody else to read, and nothing is left beside it."""
    assert directory.read("it") is None
    for content in (b"one", b"", b"three" * 100_000):
        directory.replace("it", content)
        assert directory.read("it") == content
    assert stat.S_IMODE(os.stat(directory.file("it")).st_mode) == 0o600
    assert files(directory) == ["it", "lock"]
    directory.remove("it")
    directory.remove("it")
    assert files(directory) == ["lock"]


def test_what_was_cut_off(directory: RuntimeDirectory) -> None:
    """What a writer left that died in the middle is overwritten by the next, and goes with the file."""
    rest = Path(directory.path, ".it.new")
    rest.write_bytes(b"half" * 1000)
    directory.replace("it", b"whole")
    assert (directory.read("it"), files(directory)) == (b"whole", ["it", "lock"])
    rest.write_bytes(b"half")
    directory.remove("it")
    assert files(directory) == ["lock"]


def test_nobody_sees_half_of_it(directory: RuntimeDirectory) -> None:
    """Whoever reads while it is replaced, again and again, reads one of the contents, whole."""
    contents = [b"a" * 300_000, b"b" * 10]
    directory.replace("it", contents[0])
    seen: Counter[bytes] = Counter()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen[directory.read("it") or b"nothing"] += 1

    reader = threading.Thread(target=look)
    reader.start()
    for number in itertools.count():
        directory.replace("it", contents[number % 2])
        if number >= 300 and seen.total() > 50:
            break
    done.set()
    reader.join()
    assert set(seen) <= set(contents)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_no_room(tmp_path: Path) -> None:
    """On a full disk a file stays what it was, what there was of the new one is gone, and with room it is replaced."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        directory = claim(str(tmp_path / "rt"))
        directory.replace("it", b"old")
        for content in (b"new" * 100_000, b"x" * 60_000):
            with pytest.raises(OSError, match="No space left on device"):
                directory.replace("it", content)
            assert (directory.read("it"), files(directory)) == (b"old", ["it", "lock"])
        directory.replace("it", b"new")
        assert directory.read("it") == b"new"
        directory.remove("it")
        with suppress(OSError), (tmp_path / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 512)
        other = claim(str(tmp_path / "other"))
        with pytest.raises(Unavailable, match="a supervisor runs in"):
            claim(str(tmp_path / "other"))
        other.close()
        directory.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_what_cannot_be_read(directory: RuntimeDirectory) -> None:
    """Something else in the file's place is an OSError, to read and to replace, and stays."""
    os.mkdir(directory.file("it"))
    with pytest.raises(IsADirectoryError):
        directory.read("it")
    with pytest.raises(IsADirectoryError):
        directory.replace("it", b"new")
    assert files(directory) == ["it", "lock"]
    os.rmdir(directory.file("it"))


def _link(path: str) -> None:
    os.symlink(f"{path}.elsewhere", path)


def _hard_link(path: str) -> None:
    Path(f"{path}.elsewhere").write_text("precious")
    os.link(f"{path}.elsewhere", path)


def _socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


@pytest.mark.parametrize("put", [_link, _hard_link, _socket, os.mkfifo])
def test_what_is_in_the_way_is_neither_written_nor_waited_for(
    directory: RuntimeDirectory, put: Callable[[str], None]
) -> None:
    """A link, a FIFO or a socket in the way of what is written is replaced; what a link leads to stays what it was."""
    put(directory.file(".it.new"))
    directory.replace("it", b"new")
    assert stat.S_ISREG(os.lstat(directory.file("it")).st_mode)
    assert directory.read("it") == b"new"
    elsewhere = Path(directory.file(".it.new.elsewhere"))
    assert not elsewhere.exists() or elsewhere.read_text() == "precious"
    elsewhere.unlink(missing_ok=True)
    directory.remove("it")


@pytest.mark.parametrize("put", [_link, _socket, os.mkfifo])
def test_what_is_no_file_is_not_read(directory: RuntimeDirectory, put: Callable[[str], None]) -> None:
    """A link, a FIFO or a socket under the name of one of our files is an OSError at once, to read and to append to."""
    put(directory.file("it"))
    for use in (directory.read, directory.append):
        with pytest.raises(OSError, match="it"):
            use("it")
    directory.remove("it")


def test_what_is_too_large_or_anothers_is_not_read(
    directory: RuntimeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file costs no memory, and a file of another user is none of ours."""
    path = Path(directory.file("it"))
    path.write_bytes(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(runtime_directory, "MOST_READ", 6)
        with pytest.raises(OSError, match="too large"):
            directory.read("it")
    with pytest.raises(PermissionError, match=f"it is of uid {os.geteuid()}"):
        read_file(str(path), ())
    path.unlink()
