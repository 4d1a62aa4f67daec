"""The accept loop of a process that has no descriptor left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_descriptor_left(loop: str) -> None:
    """Without a free descriptor the acceptor says so, pauses, and takes the waiting clients once there is one."""
    command = [sys.executable, "-W", "error", "-m", "tests.asgi.exhaustion", loop]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    taken, error = done.stdout.splitlines()
    assert taken == "3 taken"
    assert error == "cannot accept: Too many open files; trying again in 0.2 s"
