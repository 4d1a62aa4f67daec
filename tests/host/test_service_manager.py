"""Word to a service manager that is a real datagram socket."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.host import service_manager
from stillup.host.adoption_queue import cookie
from stillup.host.service_manager import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A manager that listens, on a path as systemd does or on an abstract name as containers do."""
    where = str(tmp_path / "notify") if request.param == "path" else f"@stillup-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(where.replace("@", "\0"))
        sock.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", where)
        yield sock


def test_words(manager: socket.socket) -> None:
    """The manager hears one datagram a word: READY, a status, STOPPING, each with its text."""
    notifier = Notifier()
    notifier.ready("generation 1 serves")
    notifier.status("reloading")
    notifier.stopping("draining")
    assert [manager.recv(4096) for _ in range(3)] == [
        b"READY=1\nSTATUS=generation 1 serves",
        b"STATUS=reloading",
        b"STOPPING=1\nSTATUS=draining",
    ]
    assert notifier._notifier is not None
    notifier._notifier.socket.close()


def test_a_word_is_one_line(manager: socket.socket) -> None:
    """What somebody else has chosen in a status is no assignment of ours."""
    notifier = Notifier()
    notifier.ready("gen 2 rejected (x\nMAINPID=1)")
    assert manager.recv(4096) == b"READY=1\nSTATUS=gen 2 rejected (x\\nMAINPID=1)"
    assert notifier._notifier is not None
    notifier._notifier.socket.close()


def test_workers_cannot_speak(manager: socket.socket) -> None:
    """The variable is out of the environment when the notifier has it, and its socket is close-on-exec."""
    notifier = Notifier()
    assert "NOTIFY_SOCKET" not in os.environ
    assert notifier._notifier is not None
    assert not notifier._notifier.socket.get_inheritable()
    notifier._notifier.socket.close()


def test_manager_that_does_not_read(manager: socket.socket) -> None:
    """A manager that does not read stops nobody: what it has no room for is dropped."""
    notifier = Notifier()

    def talk() -> None:
        for number in range(2000):
            notifier.status(str(number))

    talking = threading.Thread(target=talk, daemon=True)
    talking.start()
    talking.join(20)
    assert not talking.is_alive()
    assert manager.recv(4096) == b"STATUS=0"
    assert notifier._notifier is not None
    notifier._notifier.socket.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # sdnotify drops a socket that could not connect
def test_no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a manager, or with one that is not there, every word goes nowhere and nothing is raised."""
    for variable in ("", "/nowhere/at/all"):
        monkeypatch.setenv("NOTIFY_SOCKET", variable)
        notifier = Notifier()
        notifier.ready("ready")
        notifier.stopping("stopping")
        assert not os.environ.get("NOTIFY_SOCKET")
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().status("status")


def test_a_reload(manager: socket.socket) -> None:
    """Its beginning is told with the time, as systemd 253 and later ask for, and its end by READY."""
    notifier = Notifier()
    before = time.monotonic_ns() // 1000
    notifier.reloading("gen 2 boots")
    words = manager.recv(4096).decode().splitlines()
    assert (words[0], words[2]) == ("RELOADING=1", "STATUS=gen 2 boots")
    assert before <= int(words[1].removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.extend(1.5)
    notifier.alive()
    assert [manager.recv(4096) for _ in range(2)] == [b"EXTEND_TIMEOUT_USEC=1500000", b"WATCHDOG=1"]
    close(notifier)


def test_what_is_to_be_kept(manager: socket.socket) -> None:
    """The very socket arrives with its name, and with the word that a closed peer does not end its being kept."""
    notifier = Notifier()
    with socket.socket() as kept:
        notifier.store("stillup-listener-7", kept.fileno())
        words, fds, _, _ = socket.recv_fds(manager, 4096, 4)
        assert words == b"FDSTORE=1\nFDNAME=stillup-listener-7\nFDPOLL=0"
        with socket.socket(fileno=fds[0]) as received:
            assert cookie(received) == cookie(kept)
    notifier.forget("stillup-listener-7")
    assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=stillup-listener-7"
    close(notifier)


def test_a_manager_that_takes_nothing_more(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, and then named: what is not kept is lost with the next restart."""
    monkeypatch.setattr(service_manager, "PATIENCE", 0.05)
    notifier = Notifier()

    def fill() -> None:
        for number in range(2000):
            notifier.store(str(number), manager.fileno())

    with pytest.raises(BlockingIOError):
        fill()
    close(notifier)


def test_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said to anybody, and nothing was passed."""
    for name in ("NOTIFY_SOCKET", "LISTEN_PID", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    Notifier().store("x", 0)
    assert (service_manager.passed(), service_manager.watchdog()) == ([], None)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LISTEN_PID": "own", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:admin"}, [("web", 3), ("admin", 4)]),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "2"}, [("unknown", 3), ("unknown", 4)]),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:admin"}, []),
        ({"LISTEN_PID": "own", "LISTEN_FDS": "two"}, []),
        ({"LISTEN_PID": "own"}, []),
    ],
)
def test_what_was_passed(
    environment: dict[str, str], expected: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was meant for this very process, each with its name."""
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("own", str(os.getpid())))
    assert service_manager.passed() == expected


@pytest.mark.parametrize(
    ("limit", "pid", "seconds"),
    [("3000000", "own", 3.0), ("3000000", None, 3.0), ("3000000", "1", None), ("soon", "own", None), ("", None, None)],
)
def test_the_watchdog(limit: str, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ours unless it says that it is another's."""
    monkeypatch.setenv("WATCHDOG_USEC", limit)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid.replace("own", str(os.getpid())))
    assert service_manager.watchdog() == seconds


def close(notifier: Notifier) -> None:
    assert notifier._notifier is not None
    notifier._notifier.socket.close()
