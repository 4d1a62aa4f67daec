"""Files of cells that two processes share."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import PeerError
from supervisor.host import shared
from supervisor.wire.figures import SIZE

pytestmark = pytest.mark.usefixtures("no_leak")


def test_what_one_counts_another_reads(tmp_path: Path) -> None:
    """A process counts in the cells, is killed in the middle of it, and nothing that it had counted is lost."""
    path = str(tmp_path / "cells")
    fd = shared.create(path)
    code = (
        f"from supervisor.host import shared; cells = shared.cells(shared.reopen({path!r}))\n"
        "cells[5] = 2**64 - 1\n"
        "for _ in range(1000): cells[7] += 1\n"
        "print(flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    cells = shared.read(fd)
    assert (cells[5], cells[6], cells[7], len(cells)) == (2**64 - 1, 0, 1000, SIZE // 8)
    os.close(fd)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Values that are written stand in their cells; who has the cells mapped sees them."""
    fd = shared.create(str(tmp_path / "cells"))
    cells = shared.cells(fd)
    shared.write(fd, 1, 17, 2**40)
    assert list(cells[:4]) == [0, 17, 2**40, 0] == list(shared.read(fd)[:4])
    release(cells)
    os.close(fd)


def test_the_file_is_for_nobody_else(tmp_path: Path) -> None:
    """It is made anew, with its room on the disk, for its owner alone, and is not inherited."""
    path = tmp_path / "cells"
    fd = shared.create(str(path))
    status = os.fstat(fd)
    assert (stat.S_IMODE(status.st_mode), status.st_size, os.get_inheritable(fd)) == (0o600, SIZE, False)
    assert status.st_blocks * 512 >= SIZE
    with pytest.raises(FileExistsError):
        shared.create(str(path))
    os.close(fd)


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for all of it now, there is no file."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        shared.create(str(tmp_path / "cells"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    """Whoever reads it finds zeros where nothing is any more, and lives."""
    fd = shared.create(str(tmp_path / "cells"))
    shared.write(fd, 0, 1, 2)
    os.ftruncate(fd, 8)
    assert list(shared.read(fd)[:2]) == [1, 0]
    with pytest.raises(PeerError, match="right size"):
        shared.cells(fd)
    os.close(fd)


def test_what_is_no_file() -> None:
    """A pipe is nothing to count in."""
    ends = os.pipe()
    with pytest.raises(PeerError, match="no file of the right size"):
        shared.cells(ends[0])
    for end in ends:
        os.close(end)


def test_what_cannot_be_mapped(tmp_path: Path) -> None:
    """A file that may only be read is nothing to count in, either."""
    path = tmp_path / "cells"
    path.write_bytes(bytes(SIZE))
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(PeerError, match="cannot be shared"):
        shared.cells(fd)
    os.close(fd)


def test_what_somebody_put_there(tmp_path: Path) -> None:
    """A symlink is not followed, and what is no file, or somebody else's, is not read."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "other").touch()
    if os.geteuid() == 0:
        os.chown(tmp_path / "other", 4321, 4321)
    with pytest.raises(OSError, match="symbolic links"):
        shared.reopen(str(tmp_path / "link"))
    with pytest.raises(PeerError, match="no file of ours"):
        shared.reopen(str(tmp_path / "fifo"))
    if os.geteuid() == 0:
        with pytest.raises(PeerError, match="no file of ours"):
            shared.reopen(str(tmp_path / "other"))


def test_a_place_in_memory(tmp_path: Path) -> None:
    """In a directory that is in memory the files are there, else in /dev/shm; two directories never share theirs."""
    assert shared.place("/dev/shm", "figures") == "/dev/shm/figures-"
    places = {shared.place(f"/proc/{name}", "figures") for name in ("self", "1", "self/fd/../.")}
    assert len(places) == 2
    assert all(place.startswith("/dev/shm/stillup-") for place in places)
    assert shared.found("") == []


def test_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is in memory there is none."""
    monkeypatch.setattr(shared, "_IN_MEMORY", frozenset())
    assert shared.place("/dev/shm", "figures") == ""
    assert not shared._is_in_memory("/nowhere")


def test_files_are_found_and_removed(tmp_path: Path) -> None:
    """By what their paths begin with, taken for what it is; one that is gone is no trouble."""
    for name in ("[a]-1", "[a]-2", "a-3", "b-1"):
        (tmp_path / name).touch()
    found = shared.found(str(tmp_path / "[a]-"))
    assert sorted(found) == [str(tmp_path / "[a]-1"), str(tmp_path / "[a]-2")]
    for path in [*found, *found]:
        shared.remove(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-3", "b-1"]


def release(cells: memoryview) -> None:
    """Let go of mapped cells, whose mapping has a descriptor of its own."""
    view, mapped = cells, cells.obj
    view.release()
    assert isinstance(mapped, mmap.mmap)
    mapped.close()
