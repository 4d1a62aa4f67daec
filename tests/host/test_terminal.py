"""A controlling terminal that is a real pseudo-terminal, and hangs up."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).parents[2]

WATCH = """
import signal, sys
from supervisor.host.terminal import is_there
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for line in sys.stdin:
    print(is_there(), flush=True)
"""


def start(terminal: int | None) -> subprocess.Popen[str]:
    """A process of a session of its own that says whether its terminal is there, as often as it is asked."""

    def take() -> None:
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        [sys.executable, "-c", WATCH],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take,  # noqa: PLW1509 - no thread runs here, and a terminal is taken in no other way
    )


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_terminal_hangs_up() -> None:
    """A controlling terminal is there until its other end is closed, and then no more."""
    master, terminal = pty.openpty()
    with start(terminal) as process:
        os.close(terminal)
        assert [ask(process), ask(process)] == ["True", "True"]
        os.close(master)
        assert ask(process) == "False"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def test_no_terminal() -> None:
    """A process of a session without a terminal has none."""
    with start(None) as process:
        assert ask(process) == "False"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
