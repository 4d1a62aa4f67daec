"""The accept loop of a process that has no descriptor left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lines(story: str, loop: str) -> list[str]:
    """What the process of that story says; it says nothing on stderr, where the loop would complain."""
    command = [sys.executable, "-W", "error", "-m", "tests.asgi.without_descriptors", story, loop]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_descriptor_left(loop: str) -> None:
    """Without a free descriptor the acceptor says so, pauses, and takes the waiting clients once there is one."""
    error = "cannot accept: Too many open files; trying again in 0.2 s"
    assert lines("serve", loop) == ["3 taken", error]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_descriptor_left_at_the_stop(loop: str) -> None:
    """stop() that cannot empty the backlog for want of a descriptor says so, ends all the same, and tries no more."""
    assert lines("stop", loop) == ["stopped", "cannot empty the backlog: [Errno 24] Too many open files"]
