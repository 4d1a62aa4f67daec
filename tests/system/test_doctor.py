"""``stillup doctor`` on this host, with a service and without: what goes wrong is found, and nothing is a traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.system.command_line import stillup
from tests.system.harness import STILLUP, Service
from tests.system.other_user import NOBODY, as_nobody, open_folder


def _doctor(*words: str, shell: str = "", stranger: bool = False) -> subprocess.CompletedProcess[str]:
    if not shell and not stranger:
        with mock.patch.dict(os.environ):
            os.environ.pop("XDG_RUNTIME_DIR", None)
            return stillup("doctor", *words, cwd=Path("/"))
    argv = [STILLUP, "doctor", *words]
    if stranger:
        argv = as_nobody(*argv)
    if shell:
        argv = ["sh", "-c", f'{shell}; exec "$@"', "sh", *argv]
    environment = {name: text for name, text in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, cwd="/", env=environment)
    assert "Traceback" not in shown.stderr, shown.stderr
    return shown


def _found(shown: subprocess.CompletedProcess[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(shown.stdout)["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def test_a_healthy_service(tmp_path: Path) -> None:
    """Exit 0, and what runs there."""
    service = Service(tmp_path)
    service.write()
    with service:
        shown = _doctor("--runtime-dir", str(service.runtime), "--json")
        found = _found(shown)
        assert shown.returncode == 0, shown.stdout
        assert f"pid {service.process.pid}, serving" in found["supervisor"][0]["seen"]
        assert found["role"][0]["seen"].endswith("is admin there")
        assert "0660" in found["control.sock"][0]["seen"]
        assert "0 problems" in _doctor("--runtime-dir", str(service.runtime)).stdout


def test_a_stranger() -> None:
    """A stranger is told that the service is not open to them, then that they have no role: a warning, no traceback."""
    with open_folder() as folder:
        service = Service(folder)
        service.write()
        with service:
            shown = _doctor("--runtime-dir", str(service.runtime), "--json", stranger=True)
            (about,) = _found(shown)["supervisor"]
            assert (about["verdict"], shown.returncode) == ("warning", 0), shown.stdout
            assert f"is not open to uid {NOBODY}" in about["seen"]
            service.runtime.chmod(0o755)
            (service.runtime / "control.sock").chmod(0o666)
            found = _found(_doctor("--runtime-dir", str(service.runtime), "--json", stranger=True))
            assert found["role"][0]["verdict"] == "warning"
            assert "anybody can connect" in found["control.sock"][0]["seen"]


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """A directory open to all, a socket that a dead supervisor left, 256 descriptors: each with its way out; exit 1."""
    place = tmp_path / "rt"
    place.mkdir()
    place.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place / "control.sock"))
    shown = _doctor("--runtime-dir", str(place), "--json", shell="ulimit -n 256")
    found = _found(shown)
    assert shown.returncode == 1
    assert f"chmod go-w {place}" in found["runtime directory"][0]["advice"]
    assert (found["control.sock"][0]["verdict"], found["supervisor"][0]["verdict"]) == ("warning", "ok")
    assert "may have 256" in found["descriptors"][0]["seen"]
    assert found["descriptors"][0]["verdict"] == "problem"


@pytest.mark.parametrize("stranger", [False, True])
def test_before_there_is_a_service(stranger: bool) -> None:
    """It looks at what 'stillup run' would use here, as whoever asks."""
    shown = _doctor("--name", "no-such-service", stranger=stranger)
    assert "none runs in " in shown.stdout
    assert "no-such-service" in shown.stdout
    assert shown.returncode == 0, shown.stdout


def test_usage() -> None:
    """A name that cannot be one is a line and exit 2."""
    shown = _doctor("--name", "a b")
    assert (shown.returncode, "cannot be named 'a b'" in shown.stderr) == (2, True)
