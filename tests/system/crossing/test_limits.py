"""Connections that move count once, are kept no longer, and wait where there is no room for them."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.client_group import ClientGroup, frozen, worker_pids
from tests.system.clients import Peer
from tests.system.gated_service import PATIENT, Start, gone, reload
from tests.system.harness import ROOT, Service, eventually


def test_nobody_is_turned_away_for_having_moved(start: Start, stack: ExitStack) -> None:
    """With as many connections as --limit-concurrency allows, those who move are answered, and not with 503."""
    service = start("--limit-concurrency", "12", workers=1)
    clients = ClientGroup(service, stack, 11)
    with Peer(service.address()) as one_more:
        assert one_more.get().status == 503
    for generation in (1, 2):
        reload(service)
        for _ in range(3):
            # One after another: uvicorn counts requests that have just ended, so that many at once are turned away
            # without any reload.
            assert {peer.get().status for peer in clients.peers} == {200}
        gone(service, generation)


def test_an_idle_connection_is_not_kept_longer_for_having_moved(start: Start, stack: ExitStack) -> None:
    """Idle for 5 s or more of 15 when it moves, it is closed after 15 s: neither at once nor after 15 more."""
    service = start("--timeout-keep-alive", "15", workers=1)
    for generation in range(1, 4):  # a reload that takes as long as all of that proves nothing
        peer = stack.enter_context(Peer(service.address()))
        asked = time.monotonic()
        peer.get()
        answered = time.monotonic()
        assert not readable(peer, until=answered + 5)
        reload(service)
        gone(service, generation)
        if time.monotonic() - asked < 14:
            break
    else:
        pytest.fail("each reload took too long")
    assert service.status().crossing.given >= 1
    assert readable(peer, until=answered + 5 + 14.8), "not 15 s after it has moved"
    assert time.monotonic() - asked > 14.8, "not at once"
    assert peer.ends()


def readable(peer: Peer, until: float) -> bool:
    return bool(select.select([peer.sock], [], [], max(0.0, until - time.monotonic()))[0])


NOBODY = 12345


NOFILE = 256


def _python_of_anybody() -> list[str]:
    """What another user can run stillup with: the interpreter, and the environment that it needs."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    if not (shutil.which("setpriv") and shutil.which("prlimit")):
        pytest.skip("needs the commands setpriv and prlimit")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    path = ":".join(
        [str(ROOT), str(ROOT / "supervisor"), *(entry for entry in sys.path if entry.endswith("site-packages"))]
    )
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    limit = ["prlimit", f"--nofile={NOFILE}:{NOFILE}"]
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if os.path.islink(python) and python == sys.executable:
            python = os.path.realpath(python)  # noqa: PLW2901 - the link may lie where others can go, and lead where they cannot
        run = [*limit, *become, "env", f"PYTHONPATH={path}", python]
        code = "import os, sys, stillup.worker, uvicorn, httptools; os.stat(sys.executable)"
        if subprocess.run([*run, "-c", code], capture_output=True, timeout=30, check=False).returncode == 0:
            return run
    pytest.skip(f"no {version} with our packages that another user can run")


def test_a_full_queue_makes_the_old_wait(stack: ExitStack) -> None:
    """An unprivileged user may have few descriptors in flight, and each process few open: nobody is closed for that.

    With 280 connections, more than the 256 that fit into the queue, the rest waits at the old workers.
    """
    python = _python_of_anybody()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillup-")))
    os.chown(folder, NOBODY, NOBODY)
    service = Service(folder, *PATIENT, workers=2)
    service.argv = [*python, "-m", "stillup", *service.argv[1:]]
    stack.enter_context(service)
    clients = ClientGroup(service, stack, 280)
    clients.begin("g")
    reload(service)
    with frozen(list(worker_pids(service).values())):
        clients.end("g")

        def full() -> bool:
            status = service.status()
            left = sum(w.connections for w in service.workers("draining"))
            assert status.crossing.waiting <= NOFILE + 16
            return left > 0 and status.crossing.waiting + left == 280 and status.crossing.waiting > NOFILE - 16

        eventually(full, "the queue is full, and the rest waits")
        assert all(peer.is_open() for peer in clients.peers)
        clients.ask()
    assert not clients.hear()
    gone(service)
    assert not clients.turn()
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed, crossing.waiting) == (0, 0, 0)
    assert crossing.capacity <= NOFILE
