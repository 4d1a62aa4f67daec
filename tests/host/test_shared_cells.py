"""Files of cells that two processes share."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stillup.errors import PeerError
from stillup.host import shared_cells
from stillup.wire.figure_cells import SIZE
from tests.children import spawned

pytestmark = pytest.mark.usefixtures("no_leak")


def test_what_one_counts_another_reads(tmp_path: Path) -> None:
    """A process counts in the cells, is killed in the middle of it, and nothing that it had counted is lost."""
    path = str(tmp_path / "cells")
    fd = shared_cells.create(path)
    code = (
        f"from stillup.host import shared_cells as shared; cells = shared.cells(shared.reopen({path!r}))\n"
        "cells[5] = 2**64 - 1\n"
        "for _ in range(1000): cells[7] += 1\n"
        "print(flush=True); input()"
    )
    with spawned([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    cells = shared_cells.read(fd)
    assert (cells[5], cells[6], cells[7], len(cells)) == (2**64 - 1, 0, 1000, SIZE // 8)
    os.close(fd)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Values that are written stand in their cells; who has the cells mapped sees them."""
    fd = shared_cells.create(str(tmp_path / "cells"))
    cells = shared_cells.cells(fd)
    shared_cells.write(fd, 1, 17, 2**40)
    assert list(cells[:4]) == [0, 17, 2**40, 0] == list(shared_cells.read(fd)[:4])
    release(cells)
    os.close(fd)


def test_the_file_is_for_nobody_else(tmp_path: Path) -> None:
    """It is made anew, with its room on the disk, for its owner alone, and is not inherited."""
    path = tmp_path / "cells"
    fd = shared_cells.create(str(path))
    status = os.fstat(fd)
    assert (stat.S_IMODE(status.st_mode), status.st_size, os.get_inheritable(fd)) == (0o600, SIZE, False)
    assert status.st_blocks * 512 >= SIZE
    with pytest.raises(FileExistsError):
        shared_cells.create(str(path))
    os.close(fd)


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for all of it now, there is no file."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        shared_cells.create(str(tmp_path / "cells"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    """Whoever reads it finds zeros where nothing is any more, and lives."""
    fd = shared_cells.create(str(tmp_path / "cells"))
    shared_cells.write(fd, 0, 1, 2)
    os.ftruncate(fd, 8)
    assert list(shared_cells.read(fd)[:2]) == [1, 0]
    with pytest.raises(PeerError, match="right size"):
        shared_cells.cells(fd)
    os.close(fd)


def test_what_is_no_file() -> None:
    """A pipe is nothing to count in."""
    ends = os.pipe()
    with pytest.raises(PeerError, match="no file of the right size"):
        shared_cells.cells(ends[0])
    for end in ends:
        os.close(end)


def test_what_cannot_be_mapped(tmp_path: Path) -> None:
    """A file that may only be read is nothing to count in, either."""
    path = tmp_path / "cells"
    path.write_bytes(bytes(SIZE))
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(PeerError, match="cannot be shared"):
        shared_cells.cells(fd)
    os.close(fd)


def test_what_somebody_put_there(tmp_path: Path) -> None:
    """A symlink is not followed, and what is no file, or somebody else's, is not read."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "other").touch()
    if os.geteuid() == 0:
        os.chown(tmp_path / "other", 4321, 4321)
    with pytest.raises(OSError, match="symbolic links"):
        shared_cells.reopen(str(tmp_path / "link"))
    with pytest.raises(PeerError, match="no file of ours"):
        shared_cells.reopen(str(tmp_path / "fifo"))
    if os.geteuid() == 0:
        with pytest.raises(PeerError, match="no file of ours"):
            shared_cells.reopen(str(tmp_path / "other"))


def test_a_place_in_memory(tmp_path: Path) -> None:
    """In a directory that is in memory the files are there, else in /dev/shm; two directories never share theirs."""
    assert shared_cells.place("/dev/shm", "figures") == "/dev/shm/figures-"
    places = {shared_cells.place(f"/proc/{name}", "figures") for name in ("self", "1", "self/fd/../.")}
    assert len(places) == 2
    assert all(place.startswith("/dev/shm/stillup-") for place in places)
    assert shared_cells.found("") == []


def test_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is in memory there is none."""
    monkeypatch.setattr(shared_cells, "_IN_MEMORY", frozenset())
    assert shared_cells.place("/dev/shm", "figures") == ""
    assert not shared_cells._is_in_memory("/nowhere")


def test_files_are_found_and_removed(tmp_path: Path) -> None:
    """By what their paths begin with, taken for what it is; one that is gone is no trouble."""
    for name in ("[a]-1", "[a]-2", "a-3", "b-1"):
        (tmp_path / name).touch()
    found = shared_cells.found(str(tmp_path / "[a]-"))
    assert sorted(found) == [str(tmp_path / "[a]-1"), str(tmp_path / "[a]-2")]
    for path in [*found, *found]:
        shared_cells.remove(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-3", "b-1"]


def test_sealed_memory() -> None:
    """Nobody who has it can make it larger or smaller, run it, or take its seals away; it is a page, and is there."""
    fd = shared_cells.create_memory()
    assert shared_cells.is_sealed(fd)
    status = os.fstat(fd)
    assert (stat.S_IMODE(status.st_mode), status.st_size, os.get_inheritable(fd)) == (0o600, SIZE, False)
    assert status.st_blocks * 512 >= SIZE
    for change in (
        lambda: os.ftruncate(fd, 1 << 30),
        lambda: os.ftruncate(fd, 0),
        lambda: os.posix_fallocate(fd, 0, 1 << 30),
        lambda: os.pwrite(fd, b"x", SIZE),
        lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
    ):
        with pytest.raises(PermissionError):
            change()
    cells = shared_cells.cells(fd)
    cells[5] = 17
    assert shared_cells.read(fd)[5] == 17
    release(cells)
    os.close(fd)


def test_what_is_not_sealed(tmp_path: Path) -> None:
    """A file, memory that can grow, and what is neither: none of these is what a worker was given."""
    growing = os.memfd_create("growing", os.MFD_ALLOW_SEALING)
    os.ftruncate(growing, SIZE)
    file = shared_cells.create(str(tmp_path / "cells"))
    ends = os.pipe()
    assert not any(map(shared_cells.is_sealed, (growing, file, *ends)))
    for fd in (growing, file, *ends):
        os.close(fd)


def test_memory_is_found_in_a_process() -> None:
    """By its inode, of all that a process has; not another one's, and not in a process that is gone."""
    mine, other = shared_cells.create_memory(), shared_cells.create_memory()
    found = shared_cells.memory_of(os.getpid(), shared_cells.identity(mine))
    assert found is not None
    assert shared_cells.identity(found) == shared_cells.identity(mine)
    for fd in (mine, found):
        os.close(fd)
    assert shared_cells.memory_of(os.getpid(), (1, 1)) is None
    assert shared_cells.memory_of(2**22 + 1, shared_cells.identity(other)) is None
    os.close(other)


def release(cells: memoryview) -> None:
    """Let go of mapped cells, whose mapping has a descriptor of its own."""
    view, mapped = cells, cells.obj
    view.release()
    assert isinstance(mapped, mmap.mmap)
    mapped.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file of another user's")
def test_what_another_user_puts_there(tmp_path: Path) -> None:
    """In a directory that all can write to, others may make files of any name, and any number of them."""
    own, other = tmp_path / "x-1", tmp_path / "x-2"
    own.touch()
    other.touch()
    os.chown(other, 20_001, 20_001)
    assert shared_cells.found(str(tmp_path / "x-")) == [str(own)]
    assert shared_cells.found(str(tmp_path / "none" / "x-")) == []
