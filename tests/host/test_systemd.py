"""Word to a service manager that is a real datagram socket."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.host.systemd import Notifier


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
