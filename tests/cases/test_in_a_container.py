"""In a container as the guide has it: PID 1, no root, a read-only file system but for /dev/shm, 10 seconds to stop."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import stillup
from tests.docs.pages import ROOT
from tests.system.clients import Peer, request
from tests.system.harness import DEADLINE, eventually
from tests.system.other_user import open_folder
from tests.system.own_pauses import OwnPauses
from tests.system.steady_load import Traffic

NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
KILLED_AFTER = 10.0
"""Seconds that Docker waits."""
BECOME = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--no-new-privs", "--"]
PACKAGES = f"{Path(stillup.__file__).parents[1]}:{sysconfig.get_path('purelib')}"
READ_ONLY = """
import subprocess, sys
def mount(*words):
    subprocess.run(["mount", *words], check=True)
folder, home = sys.argv[1:3]
mount("--make-rprivate", "/")
mount("--bind", folder, "/mnt")
points = [line.split()[4] for line in open("/proc/self/mountinfo")]
for point in dict.fromkeys(points):
    if not point.startswith(("/proc", "/dev", "/sys")):
        subprocess.run(["mount", "-o", "remount,bind,ro", point], check=False, stderr=subprocess.DEVNULL)
mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")
"""
"""Makes everything read-only, the app in /mnt, too, but for /dev/shm: a tmpfs, as engines mount one."""
APP = """
import asyncio, os
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = f"{os.environ['STILLUP_GENERATION']} {os.getpid()} v1".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"more", "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": body})
"""


def _dockerfile() -> tuple[dict[str, str], list[str], list[str]]:
    """The guide's: its variables, what it runs, and its health check."""
    (text,) = re.findall(
        r"^```dockerfile\n(FROM.*?)^```", (ROOT / "docs/guide.md").read_text(), re.MULTILINE | re.DOTALL
    )
    variables = dict(
        word.split("=", 1) for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for word in line.split()
    )
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    assert re.search(r"^USER 1000$", text, re.MULTILINE)
    return variables, json.loads(command), json.loads(check)


def _as_user(command: list[str], variables: dict[str, str]) -> list[str]:
    said = [f"{name}={value}" for name, value in {**variables, "PYTHONPATH": PACKAGES}.items()]
    found = [_python(), "-m", "stillup", *command[1:]] if command[0] == "stillup" else command
    return [*BECOME, "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", *said, *found]


@functools.cache
def _python() -> str:
    """One that this user reaches; empty if there is none. Ours may lie in somebody's home."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        words = [*BECOME, "/usr/bin/env", "-i", f"PYTHONPATH={PACKAGES}", python, "-c", "import stillup, uvicorn"]
        if shutil.which(python) and not subprocess.run(words, capture_output=True, check=False, cwd="/").returncode:
            return python
    return ""


@pytest.fixture
def folder() -> Iterator[Path]:
    if os.geteuid() != 0 or subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and namespaces")
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    if not _python():
        pytest.skip("no Python with these packages is open to other users")
    with open_folder() as folder:
        (folder / "main.py").write_text(APP)
        yield folder


@contextlib.contextmanager
def _container(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """PID 1, as it is seen from outside, and the log."""
    variables, command, _ = _dockerfile()
    with (folder / "log").open("wb") as log:
        inner = " ".join(_as_user(command, variables)).replace("0.0.0.0:8000", "127.0.0.1:0")
        script = f'{sys.executable} -c "$1" {folder} / && cd /mnt && exec {inner}'
        unshare = subprocess.Popen([*NAMESPACES, "sh", "-c", script, "sh", READ_ONLY], stdout=log, stderr=log)
        try:
            said = eventually(lambda: re.search(r"listens on http://(\S+)", (folder / "log").read_text()), "it listens")
            eventually(lambda: "gen 1 serves" in (folder / "log").read_text(), "it serves")
            (first,) = psutil.Process(unshare.pid).children()
            yield first, said[1]
        finally:
            unshare.kill()
            unshare.wait()
            print((folder / "log").read_text())


def _inside(first: psutil.Process, command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What ``docker exec`` would do."""
    words = ["nsenter", f"--target={first.pid}", "--mount", "--pid", "--wd=/mnt", *_as_user(command, variables)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_life_in_a_container(folder: Path) -> None:
    """Healthy, reloaded without a failure, a bad release kept out, and gone within Docker's 10 s with a stream open."""
    variables, _, check = _dockerfile()
    with _container(folder) as (first, address):
        assert first.uids().effective == 1000
        assert _inside(first, ["touch", "/mnt/x"], {}).returncode == 1, "all is read-only"
        healthy = _inside(first, check, variables)
        assert healthy.returncode == 0, healthy.stderr
        with Traffic(address) as traffic:
            done = _inside(first, ["stillup", "reload"], variables)
            assert done.returncode == 0, done.stderr + done.stdout
            assert "0 connections closed" in done.stdout
            traffic.goes_on()
            (folder / "main.py").write_text("import nosuch\n")
            assert _inside(first, ["stillup", "reload"], variables).returncode == 1
            traffic.goes_on()
        assert _inside(first, ["stillup", "cordon"], variables).returncode == 0
        assert _inside(first, check, variables).returncode == 0, "it serves"
        assert _inside(first, [*check, "--ready"], variables).returncode == 1
        with Peer(address) as streams, OwnPauses() as pauses:
            streams.send(request("/stream"))
            streams.until(b"more")
            first.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, alive = psutil.wait_procs([first], timeout=DEADLINE)
            assert not alive
            assert time.monotonic() - began - pauses.since(began) < KILLED_AFTER
        log = (folder / "log").read_text()
        assert "cut 1 stream" in log
        assert log.rstrip().endswith("stopped")
