"""What tests start is ended on every way out, and hears the signals that a background job ignores."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import children
from tests.children import spawned

ROOT = Path(__file__).parents[1]
RUN = """
import os, signal, subprocess, sys
from tests.children import none_outlives_us
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
with none_outlives_us():
    says = "print(os.getpid(), open('/proc/self/status').read().split('SigIgn:')[1].split()[0], flush=True)"
    code = f"import os, time; {says}; time.sleep(600)"
    subprocess.run(["setsid", "--fork", sys.executable, "-c", code], check=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A run of tests that ignores SIGINT and SIGHUP, starts a process of another session, and is killed."""


def test_nothing_outlives_a_run_that_is_killed() -> None:
    """Not even a process of another session, whose parent is gone; and it ignored no signal."""
    argv = [sys.executable, "-c", RUN]
    with spawned(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        pid, ignored = run.stdout.readline().split()
        pidfd = os.pidfd_open(int(pid))
        for number in (signal.SIGINT, signal.SIGHUP):
            assert not int(ignored, 16) >> (number - 1) & 1
        run.stdin.close()
        assert run.wait(20) == -signal.SIGKILL
    assert select.select([pidfd], [], [], 20)[0], "it still runs"
    os.close(pidfd)


def test_what_a_test_leaves_is_found_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by its mark, whoever is its parent now."""
    monkeypatch.setattr(children, "SOON", 0.2)
    before = set(children.running())
    code = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen(["setsid", "--fork", sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline(), "it is what it was to become"
        assert parent.wait(20) == 0
        left = children.end(set(children.running()) - before)
    assert list(left.values()) == [f"{sys.executable} -c {code} "]


def test_a_child_is_killed_when_the_body_fails() -> None:
    """Nobody waits for a child that goes on."""
    with pytest.raises(ZeroDivisionError), spawned(["sleep", "600"]) as child:
        raise ZeroDivisionError
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_does_not_end_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a deadline to end by itself, and is killed."""
    monkeypatch.setattr(children, "DEADLINE", 0.1)
    with pytest.raises(AssertionError, match="did not end"), spawned(["sleep", "600"]) as child:
        pass
    assert child.returncode == -signal.SIGKILL
