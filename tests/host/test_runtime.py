"""The runtime directory and its lock."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import Unavailable
from supervisor.host.runtime import claim

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from supervisor.host.runtime import claim
held = claim(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


TAKE = """
import os, sys
from supervisor.errors import Unavailable
from supervisor.host.runtime import claim
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
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match=rf"already \(pid {holder.pid}\); 'stillup stop --runtime-dir {path}'"):
            claim(path)
        assert lock_text(path) == f"{holder.pid}\n"
        holder.kill()
    # Nobody tidied up after it: a lock file that nobody holds is no lock.
    assert lock_text(path) == f"{holder.pid}\n"
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


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """Of several processes that claim a directory and give it up, over and over, never two have it together."""
    path = str(tmp_path / "app")
    takers = [subprocess.Popen([sys.executable, "-c", TAKE, path], cwd=ROOT) for _ in range(3)]
    assert [taker.wait(60) for taker in takers] == [0, 0, 0]
