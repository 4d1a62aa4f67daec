"""Which supervisor is meant when nobody says."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.client import NotRunningError
from stillup.client import orphans as client_orphans
from stillup.client.service_lookup import candidates, find
from stillup.errors import UsageError
from stillup.wire import runtime_paths
from tests.system.other_user import being, open_folder


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an unprivileged user's services."""
    if os.geteuid() == 0:  # who else's directories are there, it must be ourselves
        monkeypatch.setattr(os, "geteuid", lambda: 987654)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    for module in (sys.modules[find.__module__], runtime_paths):
        monkeypatch.setattr(module, "SYSTEM", str(tmp_path / "system"))
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


@pytest.fixture
def host(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the host's services, open to everybody, with ``shop`` and the closed ``vault`` in it."""
    if os.getuid() != 0:
        pytest.skip("needs root, whose folder it is")
    monkeypatch.undo()
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    with open_folder() as folder:
        for module in (sys.modules[find.__module__], runtime_paths):
            monkeypatch.setattr(module, "SYSTEM", str(folder))
        for name, mode in (("shop", 0o666), ("vault", 0o600)):
            os.chmod(f"{_runs(folder, name)}/control.sock", mode)
            with being(UNIT):
                _listeners[-1].listen()  # the kernel tells of a listener what it was then
            (folder / name).chmod(0o711)
            os.chown(folder / name, UNIT, -1)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "none"))
        yield folder


UNIT = 23456
"""Whom services of units run as."""


@pytest.mark.parametrize("who", [0, 987654])
def test_a_service_of_the_host_is_found_by_whom_it_lets_in(host: Path, who: int) -> None:
    """Root's services and units' are found by name, and without one by root and whomever their sockets are open to."""
    with being(who):
        shop, vault = str(host / "shop"), str(host / "vault")
        assert candidates() == ([shop, vault] if who == 0 else [shop])
        assert find("shop", None) == shop
        assert find("vault", None) == vault, "which says itself who may not"
        if who == 0:
            with pytest.raises(UsageError, match=r"--name: shop, vault"):
                find(None, None)
        else:
            assert find(None, None) == shop
            own = runtime_paths.bases(who, os.environ)[0]
            assert find("nosuch", None) == f"{own}/nosuch"


def test_what_anybody_may_have_made_is_none_of_the_hosts(host: Path) -> None:
    """Where others can write, a directory that is neither ours nor root's is nobody whom we ask."""
    host.chmod(0o777)
    assert find("shop", None) == str(host / "shop"), "the only place where it may be"
    with pytest.raises(NotRunningError):
        find(None, None)


def test_whose_supervisor_answers_has_left_nobody_behind(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are orphans where nobody listens, not where somebody does of whom one would not ask anything."""
    place = _runs(host / "else", "shop")
    os.chown(place, UNIT, -1)
    monkeypatch.setattr(client_orphans, "_record", lambda _: pytest.fail("its record was looked at"))
    with client_orphans.orphans(place) as left:
        assert not left
