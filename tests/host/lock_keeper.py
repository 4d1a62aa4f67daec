"""Another process that holds a leader's lock."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

KEEPER = """
import os, signal, sys
from stillup.host import leader_lock
assert leader_lock.take({fd})
me = os.getpid()
if not {forks} or os.fork():
    print("held", flush=True)
if os.getpid() == me and {forks}:
    signal.pause()
sys.stdin.read()
"""


@contextlib.contextmanager
def lock_kept(fd: int, *, forks: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock while this lasts; with ``forks`` it has a child, which ends with this."""
    program = [sys.executable, "-c", KEEPER.format(fd=fd, forks=forks)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd], text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
