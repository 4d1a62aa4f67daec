"""Socket files: their mode and owner, whose they are, and who may take a path over."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillup.errors import Unavailable
from stillup.host import socket_files
from stillup.host.socket_files import UnixFile, bind_unix
from stillup.host.sockets import Listener, open_listener
from stillup.wire.address import parse_bind
from tests.children import spawned

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the socket file will be."""
    return str(tmp_path / "web.sock")


@contextlib.contextmanager
def opened(bind: str) -> Iterator[Listener]:
    """A listener, as a ``--bind`` asks for it."""
    listener = open_listener(parse_bind(bind), 4)
    try:
        yield listener
    finally:
        listener.close()


def reached(path: str) -> socket.socket | None:
    """A connection to whoever listens on the path."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return sock


def serves(listener: Listener, path: str) -> bool:
    """Whether who connects to the path comes in at this listener."""
    client = reached(path)
    if client is None:
        return False
    with client:
        accepted, _ = listener.socket.accept()
        accepted.close()
        return client.recv(1) == b""


def leave_stale(path: str) -> None:
    """Leave the file of a socket that nobody has any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)
        sock.listen()


def test_file(path: str) -> None:
    """A path gets a socket file that is reached there, of mode 0666 as uvicorn's, and removed at close."""
    with opened(f"unix:{path}") as listener:
        assert (listener.info.family, listener.info.address) == (socket.AF_UNIX, f"unix:{path}")
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o666
        assert serves(listener, path)
    assert not os.path.lexists(path)


@pytest.mark.parametrize(("mode", "umask"), [("0600", 0o000), ("660", 0o077), ("0777", 0o022)])
def test_mode(path: str, mode: str, umask: int) -> None:
    """The file has the mode that was asked for, whatever the umask."""
    before = os.umask(umask)
    try:
        with opened(f"unix:{path},mode={mode}"):
            assert stat.S_IMODE(os.lstat(path).st_mode) == int(mode, 8)
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_owner(path: str) -> None:
    """The file belongs to the user and the group that were asked for."""
    with opened(f"unix:{path},user=daemon,group=mail"):
        status = os.lstat(path)
        assert (Path(path).owner(), Path(path).group()) == ("daemon", "mail")
        assert stat.S_IMODE(status.st_mode) == 0o666


def test_nobody_connects_before_mode_and_owner(path: str) -> None:
    """Between bind and listen, while the file gets its mode and owner, nobody can connect."""
    sock, file = bind_unix(path, 0o600)
    with sock:
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
        assert reached(path) is None
        file.remove()


def test_replaced(path: str) -> None:
    """Whoever may take the path whatever is there, as the one that holds the directory's lock, replaces the file."""
    for _ in range(2):  # at first nothing is there
        with bind_unix(path, 0o600, kind=socket.SOCK_SEQPACKET, replace=True)[0] as sock:
            sock.listen()
            assert sock.type == socket.SOCK_SEQPACKET
            with pytest.raises(Unavailable, match="address already in use"):
                bind_unix(path, 0o600)


def test_stale_file_is_taken_over(path: str) -> None:
    """The file of a socket that nobody has any more is replaced."""
    leave_stale(path)
    with opened(f"unix:{path}") as listener:
        assert serves(listener, path)


def test_live_file_is_refused(path: str) -> None:
    """A path that somebody listens on is refused, and stays theirs, also when its backlog is full."""
    with opened(f"unix:{path}") as listener, contextlib.ExitStack() as stack:
        for _ in range(2):
            with pytest.raises(Unavailable, match="somebody listens there"):
                open_listener(parse_bind(f"unix:{path}"), 1)
        # The probes above are connections too; the rest of the backlog of 4 + 1 is filled here.
        full = False
        while not full:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            full = sock.connect_ex(path) != 0
        with pytest.raises(Unavailable, match="somebody listens there"):
            open_listener(parse_bind(f"unix:{path}"), 1)
        assert UnixFile.of(path) == listener.file


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_live_file_of_another_kind_is_refused(path: str, kind: socket.SocketKind) -> None:
    """A path that a socket of another kind has is refused, and stays its own."""
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(path)
        with pytest.raises(Unavailable, match="somebody listens there"):
            open_listener(parse_bind(f"unix:{path}"), 1)
        assert os.path.lexists(path)


def test_what_is_no_socket_is_refused(path: str) -> None:
    """A regular file, a directory, or a symlink even to a stale socket is refused, and stays what it is."""
    Path(path).write_text("precious")
    with pytest.raises(Unavailable, match="the file there is no socket; move it away"):
        open_listener(parse_bind(f"unix:{path}"), 1)
    assert Path(path).read_text() == "precious"
    directory = f"{path}.directory"
    os.mkdir(directory)
    link = f"{path}.link"
    leave_stale(f"{path}.stale")
    os.symlink(f"{path}.stale", link)
    for where in (directory, link):
        with pytest.raises(Unavailable, match="no socket"):
            open_listener(parse_bind(f"unix:{where}"), 1)
    assert os.path.islink(link)
    assert os.path.isdir(directory)


def test_no_directory(tmp_path: Path) -> None:
    """A path in a directory that does not exist is refused."""
    with pytest.raises(Unavailable, match=r"its directory .*/missing is not there"):
        open_listener(parse_bind(f"unix:{tmp_path}/missing/web.sock"), 1)


def test_somebody_elses_file_is_not_removed(path: str) -> None:
    """At close the path is left alone if it has come to name another file; if it names none, nothing happens."""
    with opened(f"unix:{path}"):
        os.unlink(path)
        leave_stale(path)
    assert os.path.lexists(path)
    with opened(f"unix:{path}"):
        os.unlink(path)


def test_the_lock_is_waited_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another taker holds the path's lock nothing is removed or bound, and in the end it is refused."""
    monkeypatch.setattr(socket_files, "LOCK_DEADLINE", 0.05)
    leave_stale(path)
    stale = UnixFile.of(path)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(Unavailable, match=f"another process holds the lock {path}.lock"):
        open_listener(parse_bind(f"unix:{path}"), 1)
    assert UnixFile.of(path) == stale
    os.close(lock)
    with opened(f"unix:{path}") as listener:
        assert serves(listener, path)
        assert os.listdir(os.path.dirname(path)) == ["web.sock"]


def test_a_lock_of_the_directory_is_nobodys_business(path: str) -> None:
    """Who may look into the directory may lock it for ever, and a start does not notice."""
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(parent, fcntl.LOCK_EX)
    leave_stale(path)
    with opened(f"unix:{path}") as listener:
        assert serves(listener, path)
    os.close(parent)


def _file_of_eve(path: str) -> None:
    Path(path).touch(mode=0o666)
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("put", [lambda path: os.symlink("/etc/shadow", path), os.mkfifo, os.mkdir, _file_of_eve])
def test_a_lock_of_somebody_else_is_not_waited_for_long(path: str, put: Callable[[str], None]) -> None:
    """What is no lock of ours is left alone, and keeps nobody from starting; be it held by whoever has it."""
    if put is _file_of_eve and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    put(f"{path}.lock")
    before = os.lstat(f"{path}.lock")
    with contextlib.ExitStack() as stack:
        if put is _file_of_eve:
            fcntl.flock(stack.enter_context(open(f"{path}.lock", "rb")), fcntl.LOCK_EX)
        leave_stale(path)
        with opened(f"unix:{path}") as listener:
            assert serves(listener, path)
    assert os.path.samestat(os.lstat(f"{path}.lock"), before)
    assert os.lstat(f"{path}.lock").st_mode == before.st_mode


TAKER = """
import sys
from stillup.errors import Unavailable
from stillup.host.sockets import open_listener
from stillup.wire.address import parse_bind
print("here", flush=True)
taken = {}
for line in sys.stdin:
    path = line.strip()
    try:
        taken[path] = open_listener(parse_bind(f"unix:{path}"), 4)
    except Unavailable as error:
        assert "somebody listens there" in str(error), error
    print(path if path in taken else "", flush=True)
"""


class Taker:
    """A process that takes the paths that it is told."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.process = stack.enter_context(
            spawned([sys.executable, "-c", TAKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert self.heard() == "here"

    def take(self, path: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()

    def heard(self) -> str:
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).rstrip()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)


def test_two_takers_of_one_stale_file(tmp_path: Path) -> None:
    """Of two processes that take one stale path at the same time exactly one gets it, and somebody listens there."""
    with contextlib.ExitStack() as stack:
        takers = [Taker(stack), Taker(stack)]
        for number in range(40):
            path = str(tmp_path / f"{number}.sock")
            leave_stale(path)
            for taker in takers if number % 2 else reversed(takers):
                taker.take(path)
            assert sorted(taker.heard() for taker in takers) == ["", path]
            client = reached(path)
            assert client is not None
            client.close()
        assert [taker.end() for taker in takers] == [0, 0]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_no_moment_of_a_wrong_mode(monkeypatch: pytest.MonkeyPatch, path: str, umask: int) -> None:
    """From bind on nobody else may connect, whatever the umask; and until listen nobody at all can."""
    modes: list[int] = []
    give = socket_files._give

    def looking(*words: Any) -> None:
        modes.append(stat.S_IMODE(os.stat(path).st_mode))
        assert reached(path) is None
        give(*words)

    monkeypatch.setattr(socket_files, "_give", looking)
    before = os.umask(umask)
    try:
        sock, file = bind_unix(path, 0o660)
    finally:
        os.umask(before)
    with sock:
        assert [mode & 0o077 for mode in modes] == [0]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert reached(path) is None
    file.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_group_that_is_not_ours(path: str) -> None:
    """Who may not give the file to a group is told so, and leaves none."""
    code = "import sys; from stillup.host.socket_files import bind_unix; bind_unix(sys.argv[1], 0o660, -1, 23456)"
    os.chmod(os.path.dirname(path), 0o777)
    drop = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    look = ["--inh-caps=+dac_read_search,+dac_override", "--ambient-caps=+dac_read_search,+dac_override"]
    argv = [*drop, *look, sys.executable, "-c", code, path]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert f"cannot bind unix:{path}: operation not permitted; only root" in done.stderr
    assert not os.path.exists(path)
