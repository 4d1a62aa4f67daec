"""What the doctor sees: of real files, locks and supervisors; and that nothing it cannot see is an error."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from stillup.client.doctor import gather as look
from stillup.client.doctor.facts import ConnectResult
from stillup.client.doctor.gather import gather
from tests.client.scripted_supervisor import answer, supervisor
from tests.system.other_user import NOBODY, as_nobody, being, open_folder

DENIED = """\
type=AVC msg=audit(1.1:7): avc:  denied  { connectto } for  pid=7 comm="nginx" path="/run/other"
type=AVC msg=audit(1.2:8): avc:  denied  { name_bind } for  pid=8 comm="stillup" src=8000
type=AVC msg=audit(1.3:9): avc:  granted  { name_bind } for  pid=8 comm="stillup" src=8001
audit: type=1400 audit(1.4:9): apparmor="DENIED" operation="connect" profile="x" comm="curl" name="%s/control.sock"
"""


def test_a_supervisor_that_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there and does not answer: seen after a while, with the pid that holds its lock."""
    monkeypatch.setattr(look, "PATIENCE", 0.05)
    with (tmp_path / "lock").open("w") as lock, supervisor(tmp_path, b"", hold=True):
        fcntl.flock(lock, fcntl.LOCK_EX)
        seen = gather(str(tmp_path))
    assert (seen.service.runs, seen.service.pid) == (True, os.getpid())
    assert "did not answer in time" in seen.service.trouble
    control = seen.place.file("control.sock")
    assert control is not None
    assert control.answer is ConnectResult.YES


def test_what_a_dead_supervisor_has_left(tmp_path: Path) -> None:
    """Its files, whose sockets refuse; a lock that nobody holds."""
    for name, kind in (("control.sock", socket.SOCK_STREAM), ("handoff.sock", socket.SOCK_SEQPACKET)):
        with socket.socket(socket.AF_UNIX, kind) as dead:
            dead.bind(str(tmp_path / name))
    (tmp_path / "lock").write_text("1\n")
    (tmp_path / "record.json").write_text("garbled")
    place = gather(str(tmp_path)).place
    assert [(file.name, file.kind, file.answer) for file in place.files] == [
        ("control.sock", "socket", ConnectResult.REFUSED),
        ("handoff.sock", "socket", ConnectResult.REFUSED),
        ("lock", "file", None),
        ("record.json", "file", None),
    ]
    assert (place.lock_holder, place.orphans, place.open) == (None, (), True)


def test_a_live_hand_off_socket_is_not_connected_to(tmp_path: Path) -> None:
    """That it lives is seen without its supervisor taking us for a worker."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(tmp_path / "handoff.sock"))
        listener.listen()
        (file,) = gather(str(tmp_path)).place.files
        assert file.answer is ConnectResult.YES
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_nothing_is_there(tmp_path: Path) -> None:
    """No directory, one that cannot be made below a file, and one whose name is no text."""
    assert gather(str(tmp_path / "a" / "b")).place.can_be_made
    (tmp_path / "file").touch()
    seen = gather(str(tmp_path / "file" / "b"))
    assert (seen.place.directory, seen.service.runs) == (None, False)
    assert gather("\udcff" * 200).place.directory is None


def test_a_place_that_is_not_open_to_us() -> None:
    """Below a directory of somebody else's nothing is seen, nor could anything be made there."""
    with open_folder() as folder:
        (folder / "closed" / "rt").mkdir(parents=True)
        (folder / "closed").chmod(0o700)
        as_nobody()
        with being(NOBODY):
            place = gather(str(folder / "closed" / "rt" / "shop")).place
    assert (place.directory, place.can_be_made) == (None, False)


def test_levels_of_somebody_else() -> None:
    """What is above a directory counts, be it there or not; a level of the user whose it is does not."""
    as_nobody()
    with open_folder() as folder:
        (folder / "level" / "rt").mkdir(parents=True)
        os.chown(folder / "level", NOBODY, NOBODY)
        for path in (folder / "level" / "rt", folder / "level" / "missing" / "rt"):
            (hazard,) = gather(str(path)).place.hazards
            assert f"{folder}/level is of uid {NOBODY}" in hazard
        os.chown(folder / "level" / "rt", NOBODY, NOBODY)
        assert not gather(str(folder / "level" / "rt")).place.hazards
        with being(NOBODY):
            assert not gather(str(folder / "level" / "missing")).place.hazards


def test_another_answers_there(tmp_path: Path) -> None:
    """Whatever speaks on control.sock: what it says is a finding, not an error."""
    with supervisor(tmp_path, answer(b"<html>", "500 Internal Server Error", "text/html")):
        assert "makes no sense" in gather(str(tmp_path)).service.trouble


def test_denials_are_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the logs those lines count, once, that are denials of our programs or at our files."""
    for log in ("_audit_log", "_journal"):
        monkeypatch.setattr(look, log, lambda: DENIED % tmp_path)
    monkeypatch.setattr(look, "_kernel_log", lambda: "")
    seen = gather(str(tmp_path)).security
    assert [line.partition("(")[2][:3] for line in seen.denials] == ["1.2", "1.4"]
    assert seen.logs_read


def test_what_this_host_is(tmp_path: Path) -> None:
    """The host on which the tests run has what is needed, and its limits are known."""
    seen = gather(str(tmp_path))
    assert seen.kernel.missing == ()
    assert seen.kernel.files is not None
    assert seen.kernel.somaxconn is not None
    assert seen.environment.uvicorn


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["stillup", "run", "main:app"], None),
        (["stillup", "run", "--backlog", "512"], 512),
        (["stillup", "--backlog=64", "main:app"], 64),
        (["stillup", "--backlog", "many"], None),
    ],
)
def test_backlog_of_a_command_line(argv: list[str], wanted: int | None) -> None:
    """As the supervisor was told."""
    assert look._backlog(argv) == wanted
