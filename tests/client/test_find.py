"""Which supervisor is meant when nobody says."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.client.find import find
from supervisor.client.http import NotRunningError
from supervisor.errors import UsageError


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an unprivileged user's services."""
    monkeypatch.setattr(os, "geteuid", lambda: 987654)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    yield tmp_path / "stillup"
    while _listeners:
        _listeners.pop().close()


def _runs(base: Path, name: str) -> str:
    (base / name).mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(base / name / "control.sock"))
    listener.listen()
    _listeners.append(listener)
    return str(base / name)


_listeners: list[socket.socket] = []


def test_the_only_one_is_meant(base: Path) -> None:
    """With one instance none needs to be named; a socket that a dead one left is none."""
    with socket.socket(socket.AF_UNIX) as dead:
        (base / "leftover").mkdir(parents=True)
        dead.bind(str(base / "leftover" / "control.sock"))
    web = _runs(base, "web")
    assert find(None, None) == web


def test_of_several_one_must_be_named(base: Path) -> None:
    """With several they are listed."""
    web, _ = _runs(base, "web"), _runs(base, "admin")
    with pytest.raises(UsageError, match=r"--name: admin, web"):
        find(None, None)
    assert find("web", None) == web


def test_none_runs(base: Path) -> None:
    """With none, it says where it looked."""
    with pytest.raises(NotRunningError, match=str(base)):
        find(None, None)


def test_what_is_said_wins(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--runtime-dir is taken as it is; systemd's directory comes before a search."""
    _runs(base, "web")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one:/run/two")
    assert find(None, "/elsewhere") == "/elsewhere"
    assert find(None, None) == "/run/one"
