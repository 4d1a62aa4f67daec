"""A log file: opened at its end, or refused with its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.errors import Unavailable
from stillup.host.accounts import Account
from stillup.host.log_file import open_log, try_log
from tests.system.other_user import open_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
WORKER = Account(20_022, 20_022, (), {})


@pytest.fixture
def place(no_leak: None) -> Iterator[Path]:
    """A directory whose levels are all root's."""
    with open_folder() as folder:
        yield folder


def append(path: Path, text: str, account: Account | None = None) -> None:
    fd = open_log(str(path), account)
    os.write(fd, text.encode())
    os.close(fd)


@pytest.mark.usefixtures("no_leak")
def test_it_is_written_at_its_end(tmp_path: Path) -> None:
    """What is there stays, and what is not there is made, for nobody else to read."""
    log = tmp_path / "log"
    append(log, "one ")
    append(log, "two")
    assert log.read_text() == "one two"
    assert log.stat().st_mode & 0o007 == 0
    fd = open_log(str(log), None)
    assert os.get_blocking(fd)
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.usefixtures("no_leak")
def test_what_cannot_be_written(tmp_path: Path) -> None:
    """A directory that is not there, and a FIFO that nobody reads, which is not waited for."""
    os.mkfifo(tmp_path / "fifo")
    for name, why in {"no/log": "No such file", "fifo": "a FIFO that nobody reads", ".": "Is a directory"}.items():
        with pytest.raises(Unavailable, match=f"--log-file .*{why}"):
            open_log(f"{tmp_path}/{name}", None)


@needs_root
@pytest.mark.usefixtures("no_leak")
def test_where_the_workers_user_writes(tmp_path: Path) -> None:
    """Where the workers' user could put a link in the place of the file, as to /etc/shadow, it is refused."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    append(theirs / "log", "ours", WORKER)
    os.chown(theirs, WORKER.uid, WORKER.gid)
    with pytest.raises(Unavailable, match=f"uid 20022, whose the workers are, can write to {theirs}"):
        open_log(str(theirs / "log"), WORKER)
    append(theirs / "log", "", None)


@needs_root
def test_where_a_link_leads(place: Path) -> None:
    """The directory behind a final link counts as its own does; no link is followed that another could have made."""
    (ours := place / "ours").mkdir(mode=0o755)
    (secret := place / "secret").write_text("root's")
    link, their_log = place / "app.log", ours / "app.log"
    link.symlink_to(their_log)
    append(link, "one", WORKER)
    assert their_log.read_text() == "one"
    for uid in (WORKER.uid, 20_023):
        os.chown(ours, uid, 0)
        their_log.unlink()
        their_log.symlink_to(secret)
        with pytest.raises(Unavailable, match=f"{ours} (is of uid 20023|, and so have)|can write to {ours}"):
            open_log(str(link), WORKER)
        assert secret.read_text() == "root's"
    os.chown(ours, 0, 0)
    append(link, "!", WORKER)
    os.chown(their_log, 20_023, 0, follow_symlinks=False)
    with pytest.raises(Unavailable, match=f"{their_log} is a symbolic link and belongs to uid 20023"):
        open_log(str(link), WORKER)
    assert secret.read_text() == "root's!"
    circle = place / "circle"
    circle.symlink_to("circle")
    with pytest.raises(Unavailable, match="symbolic links"):
        open_log(str(circle), WORKER)


@needs_root
def test_a_directory_that_a_group_can_write_to(place: Path) -> None:
    """As /var/log is on some systems: a group that is not the workers' is root's choice, and one that is theirs not."""
    (logs := place / "log").mkdir()
    (place / "link").symlink_to(logs / "app.log")
    logs.chmod(0o775)
    os.chown(logs, 0, 20_030)
    for name in ("log/app.log", "link"):
        append(place / name, "x", WORKER)
    member = Account(WORKER.uid, WORKER.gid, (20_030,), {})
    for name in ("log/app.log", "link"):
        with pytest.raises(Unavailable, match=f"uid 20022, whose the workers are, can write to {logs}"):
            open_log(str(place / name), member)
    os.chown(logs, 0, 0)
    logs.chmod(0o757)
    with pytest.raises(Unavailable, match=f"can write to {logs}"):
        open_log(str(logs / "app.log"), WORKER)


@pytest.mark.parametrize("account", [None, WORKER])
@pytest.mark.usefixtures("no_leak")
def test_what_is_open_already(account: Account | None, tmp_path: Path) -> None:
    """``/dev/stdout`` and its like: a pipe, a file that was renamed; and a device."""
    reading, writing = os.pipe()
    with (tmp_path / "log").open("w") as file:
        (tmp_path / "log").rename(tmp_path / "renamed")
        for number in (writing, file.fileno()):
            append(Path(f"/dev/fd/{number}"), "said", account)
        append(Path("/dev/null"), "said", account)
    assert os.read(reading, 10) == b"said"
    assert (tmp_path / "renamed").read_text() == "said"
    assert not (tmp_path / "log").exists()
    os.close(reading)
    os.close(writing)


@pytest.mark.usefixtures("no_leak")
def test_a_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what opening would, and makes nothing."""
    log = tmp_path / "log"
    try_log(str(log), None)
    assert not log.exists()
    append(log, "one")
    try_log(str(log), None)
    assert log.read_text() == "one"
    for name, why in {"no/log": "No such file", ".": "Is a directory"}.items():
        with pytest.raises(Unavailable, match=f"--log-file .*{why}"):
            try_log(f"{tmp_path}/{name}", None)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(Unavailable, match=f"no right to make a file in {tmp_path}"):
        try_log(f"{tmp_path}/none", None)
