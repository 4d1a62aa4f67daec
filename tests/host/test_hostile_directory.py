"""A bind's directory whose owner exchanges the socket file for whatever there is, while root binds there."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillup.errors import Unavailable
from stillup.host.socket_files import UnixFile, bind_unix, give
from stillup.host.sockets import open_listener
from stillup.wire.address import parse_bind

pytestmark = pytest.mark.usefixtures("no_leak")

OTHERS_MODE = 0o640
ROUNDS = 40
PATIENCE = 20.0
"""Seconds; a busy machine may not come to all rounds."""


class Kind:
    """Something to put in the place of a socket file. What it leads to is another's, and is to stay what it was."""

    def __init__(self, folder: Path) -> None:
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.victim = self.elsewhere / "victim"
        self.victim.write_text("precious")
        self.live = socket.socket(socket.AF_UNIX)
        self.live.bind(str(self.elsewhere / "live"))
        self.live.listen(1)
        for file in self.elsewhere.iterdir():
            file.chmod(OTHERS_MODE)
        self.before = self.seen()

    def seen(self) -> list[tuple[str, int, int, int, int]]:
        files = [(file.name, file.lstat()) for file in sorted(self.elsewhere.iterdir())]
        return [(name, it.st_ino, it.st_mode, it.st_uid, it.st_gid) for name, it in files]

    def symlink(self, path: str) -> None:
        os.symlink(self.victim, path)

    def link_to_a_socket(self, path: str) -> None:
        os.symlink(self.elsewhere / "live", path)

    def dangling(self, path: str) -> None:
        os.symlink(self.elsewhere / "nothing", path)

    def hard_link(self, path: str) -> None:
        os.link(self.victim, path)

    def socket_of_another(self, path: str) -> None:
        os.link(self.elsewhere / "live", path)

    def fifo(self, path: str) -> None:
        os.mkfifo(path, 0o600)

    def directory(self, path: str) -> None:
        os.mkdir(path)

    def nothing(self, path: str) -> None:
        """Leave the name free."""


KINDS = [name for name in vars(Kind) if not name.startswith("_") and name != "seen"]


@pytest.fixture
def kind(tmp_path: Path) -> Iterator[Kind]:
    made = Kind(tmp_path)
    yield made
    assert made.seen() == made.before
    assert made.victim.read_text() == "precious"
    made.live.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "run").mkdir()
    return str(tmp_path / "run" / "web.sock")


def clear(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)


@contextlib.contextmanager
def afterwards(monkeypatch: pytest.MonkeyPatch, call: str, what: Callable[[], None]) -> Iterator[None]:
    """Have something happen right after the first call of that name on any socket."""
    real = socket.socket
    done: list[str] = []

    class Watched(real):  # type: ignore[misc, valid-type]
        pass

    def watched(self: socket.socket, *words: Any) -> Any:
        try:
            return getattr(real, call)(self, *words)
        finally:
            if not done:
                done.append(call)
                what()

    setattr(Watched, call, watched)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Watched)
        yield
    assert done


@pytest.mark.parametrize("name", KINDS)
def test_exchanged_right_after_bind(path: str, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there instead of what was bound gets neither mode nor owner, and is left there; the start is refused."""

    def exchange() -> None:
        os.unlink(path)
        getattr(kind, name)(path)

    says = "no such file" if name == "nothing" else "somebody exchanges the files in"
    with afterwards(monkeypatch, "bind", exchange), pytest.raises(Unavailable, match=says):
        open_listener(parse_bind(f"unix:{path},mode=0666"), 4)
    assert os.path.lexists(path) == (name != "nothing")
    clear(path)


@pytest.mark.parametrize("name", KINDS)
def test_a_stale_file_exchanged_after_it_was_looked_at(
    path: str, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come in the place of a file that nobody listens on is not removed."""
    bind_unix(path, 0o600)[0].close()

    def exchange() -> None:
        os.unlink(path)
        getattr(kind, name)(path)

    with afterwards(monkeypatch, "connect", exchange), contextlib.ExitStack() as stack:
        if name != "nothing":
            stack.enter_context(pytest.raises(Unavailable, match="address already in use"))
        open_listener(parse_bind(f"unix:{path}"), 4).close()
    assert os.path.lexists(path) == (name != "nothing")
    clear(path)


def test_a_level_exchanged_for_another(tmp_path: Path, path: str) -> None:
    """A directory that is another one by the time of an unlink: the file of that name there stays."""
    with open_listener(parse_bind(f"unix:{path}"), 4).socket:
        file = UnixFile.of(path)
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").mkdir()
        Path(path).write_text("precious")
        file.remove()
        assert Path(path).read_text() == "precious"
        os.unlink(path)
        (tmp_path / "run").rmdir()
        (tmp_path / "run").write_text("no directory")
        file.remove()
        (tmp_path / "run").unlink()
        (tmp_path / "run").symlink_to("moved")
        file.remove()
        assert not (tmp_path / "moved" / "web.sock").exists()


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("nothing", "socket_of_another")])
def test_mode_and_owner_are_given_to_sockets_alone(path: str, kind: Kind, name: str) -> None:
    """Also where the name is one of ours for long: after a re-exec."""
    getattr(kind, name)(path)
    with pytest.raises(Unavailable, match="the file there is no socket"):
        give(path, 0o666, os.geteuid())
    clear(path)


@pytest.mark.parametrize("name", KINDS)
def test_exchanged_all_the_time(path: str, kind: Kind, name: str) -> None:
    """Whoever puts something there and takes it away in a loop meets nothing but listeners and refusals, each soon."""
    spare, done, until = f"{path}.spare", threading.Event(), time.monotonic() + PATIENCE

    def exchange() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                if name == "nothing" or not stat.S_ISSOCK(os.lstat(path).st_mode):
                    clear(path)
                    continue
                getattr(kind, name)(spare)
                if name == "directory":
                    os.unlink(path)
                os.rename(spare, path)
                clear(spare)  # rename(2) does nothing where both are names of one file
        clear(spare)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(ROUNDS):
            began = time.monotonic()
            with contextlib.suppress(Unavailable):
                open_listener(parse_bind(f"unix:{path},mode=0666"), 4).close()
            assert time.monotonic() - began < 5
            if time.monotonic() > until:
                break
    finally:
        done.set()
        thread.join()
    clear(path)
    open_listener(parse_bind(f"unix:{path}"), 4).close()
