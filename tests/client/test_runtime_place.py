"""What a client asks, and whom: directories and sockets that somebody else has put where ours would be."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from stillup.__main__ import _COMMANDS, main
from stillup.client import Client, NotRunningError
from stillup.client.orphans import orphans
from stillup.client.service_lookup import candidates, find, is_orphaned
from stillup.wire.runtime_paths import CONTROL, HANDOFF, RECORD
from tests.system.other_user import being, open_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two other users")

BOB = 900_000 + os.getpid() % 90_000
EVE = 12345
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Listener:
    """Somebody's socket that says yes to everything, and what it was asked."""

    def __init__(self, path: Path, uid: int) -> None:
        self.asked: list[bytes] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        path.chmod(0o666)
        with being(uid):
            self._sock.listen(128)
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._sock.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(30)
                    if request := connection.recv(4096):
                        self.asked.append(request)
                        connection.sendall(OK)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()


@pytest.fixture
def listen() -> Iterator[Callable[[Path, int], Listener]]:
    made: list[Listener] = []

    def begin(path: Path, uid: int) -> Listener:
        made.append(Listener(path, uid))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that anybody may put something into, as into /tmp."""
    with open_folder() as path:
        path.chmod(0o1777)
        yield path


@pytest.fixture
def bobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the services of a user are who has no XDG_RUNTIME_DIR, before that user has any."""
    for variable in ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    path = Path(f"/tmp/stillup-{BOB}")
    yield path
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def make(path: Path, uid: int) -> Path:
    path.mkdir()
    os.chown(path, uid, uid)
    return path


def link(path: Path, to: Path, uid: int) -> None:
    path.symlink_to(to)
    os.chown(path, uid, uid, follow_symlinks=False)


WORDS = [
    *(["status"], ["reload"], ["rollback"], ["abort"], ["scale", "2"], ["events"], ["whoami"], ["trace"], ["doctor"]),
    *(["health"], ["promote"], ["history"], ["dial-stdio"], ["top", "--once"], ["dashboard"]),
    *(["supervisor", "reexec"], ["stop"], ["cordon"], ["uncordon"]),
]


@pytest.mark.parametrize("trick", ["directory", "link", "link inside"])
def test_no_command_asks_who_squats_our_folder(
    folder: Path, bobs: Path, listen: Callable[[Path, int], Listener], trick: str
) -> None:
    """Whoever has made /tmp/stillup-UID first is asked nothing by any command, which says whose it is."""
    real = folder / "eve" if trick == "link" else bobs
    make(real, EVE if trick != "link inside" else BOB)
    if trick == "link":
        link(bobs, real, EVE)
    if trick == "link inside":
        link(real / "shop", make(folder / "elsewhere", EVE), EVE)
    else:
        make(real / "shop", EVE)
    eve = listen(real / "shop" / CONTROL, EVE)
    link_at = bobs if trick == "link" else real / "shop"
    says = f"{link_at} is a symbolic link and belongs to uid {EVE}"
    if trick == "directory":
        says = f"{bobs} is in a directory that all can write to and belongs to uid {EVE}"
    for words in WORDS:
        CliRunner().invoke(main, [*words, "--help"])  # what it needs is imported as root
        with being(BOB):
            done = CliRunner().invoke(main, [*words, "--name", "shop"])
        if words != ["doctor"]:
            assert done.exit_code == (1 if words == ["health"] else 3), (words, done.output)
        assert says in done.output, (words, done.output)
    with being(BOB):
        assert "shop" not in CliRunner().invoke(main, ["ls"]).output
        assert not candidates() or trick == "link inside"
        with pytest.raises(NotRunningError):
            find(None, None)
    assert not eve.asked
    ask_nobody = {"ls", "run", "check", "systemd", "init", "migrate", "completion"}
    assert {words[0] for words in WORDS} | ask_nobody == set(_COMMANDS)


def test_our_own_folder(bobs: Path, listen: Callable[[Path, int], Listener]) -> None:
    """What bob has made there is bob's, and is asked, by root too when it is named; what another has in it is not."""
    make(bobs, BOB)
    for name, uid in (("shop", BOB), ("eves", EVE)):
        listen(make(bobs / name, uid) / CONTROL, uid)
    with being(BOB):
        assert find(None, None) == str(bobs / "shop")
        Client(str(bobs / "shop"))._call("abort", dict)
        with pytest.raises(NotRunningError, match=f"it is of uid {EVE}, in a folder where services of uid {BOB}"):
            Client(str(bobs / "eves"))._call("abort", dict)
    with pytest.raises(NotRunningError, match=f"{bobs} .* belongs to uid {BOB}, who can put another in its place"):
        Client(str(bobs / "eves"))._call("abort", dict)
    Client(str(bobs / "shop"))._call("abort", dict)


@pytest.mark.parametrize("way", ["link", "directory"])
def test_a_directory_that_is_named(folder: Path, listen: Callable[[Path, int], Listener], way: str) -> None:
    """Its owner is asked, whoever that is; where another's link or directory is on the way, nobody is."""
    shop = make(folder / "shop", BOB)
    heard = listen(shop / CONTROL, BOB)
    for uid in (0, BOB, 23456):
        with being(uid):
            Client(str(shop))._call("abort", dict)
    if way == "link":
        link(folder / "eve", folder, EVE)
    else:
        make(folder / "eve", EVE)
        shop.rename(folder / "eve" / "shop")
    for uid in (0, BOB):
        with being(uid), pytest.raises(NotRunningError, match=f"nobody was asked in .*uid {EVE}, who can put another"):
            Client(str(folder / "eve" / "shop"))._call("abort", dict)
    assert len(heard.asked) == 3


@pytest.mark.parametrize("way", ["symlink", "hard link", "listener"])
def test_another_service_is_not_reached_by_a_directory_that_is_named(
    folder: Path, listen: Callable[[Path, int], Listener], way: str
) -> None:
    """Who is admin of one service does not stop it by asking in a directory of somebody else."""
    ours, eves = make(folder / "ours", 0), make(folder / "eves", EVE)
    ours.chmod(0o711)
    heard = listen((eves if way == "listener" else ours) / CONTROL, 0)
    if way == "symlink":
        (eves / CONTROL).symlink_to(ours / CONTROL)
    elif way == "hard link":
        os.link(ours / CONTROL, eves / CONTROL)
    for uid in (0, BOB):
        with being(uid), pytest.raises(NotRunningError):
            Client(str(eves)).stop()
    assert not heard.asked


def _file(path: str) -> None:
    Path(path).touch()


def _link(path: str) -> None:
    os.symlink("/", path)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, _file, _link])
def test_what_is_no_socket(folder: Path, put: Callable[[str], None]) -> None:
    """A FIFO, a directory, a file or a link is no supervisor and no record, and nobody waits for it."""
    shop = make(folder / "shop", EVE)
    put(str(shop / CONTROL))
    put(str(shop / RECORD))
    with pytest.raises(NotRunningError):
        Client(str(shop), timeout=5).status()
    with orphans(str(shop)) as left:
        assert not left
    assert is_orphaned(str(shop))
    assert not is_orphaned(str(shop / HANDOFF))
