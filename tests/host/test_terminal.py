"""A controlling terminal that is a real pseudo-terminal, and hangs up."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
from contextlib import AbstractContextManager
from pathlib import Path

from tests.children import spawned

ROOT = Path(__file__).parents[2]

WATCH = """
import signal, sys
from stillup.host.terminal import is_there
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for line in sys.stdin:
    print(is_there(), flush=True)
"""


def start(terminal: int | None) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process of a session of its own that says whether its terminal is there, as often as it is asked."""

    def take() -> None:
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return spawned(
        [sys.executable, "-c", WATCH],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take,
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


LOCKS = """
import sys
from stillup.host import terminal
def tell(*words):
    print(*words, flush=True)
    sys.stdin.readline()
if terminal.is_stdin():
    with terminal.read_alone():
        tell(terminal.is_read())
tell(terminal.is_read(), terminal.modes() is None)
terminal.restore([])
"""


def test_a_stdin_that_is_no_terminal() -> None:
    """Nobody reads from it as from a terminal, and it is not opened anew, which may take for ever, of a pipe."""
    read, write = os.pipe()
    os.close(write)
    done = subprocess.run(
        [sys.executable, "-c", LOCKS], cwd=ROOT, stdin=read, capture_output=True, text=True, timeout=30, check=False
    )
    os.close(read)
    assert (done.stdout, done.stderr) == ("False True\n", "")


def test_who_reads_alone() -> None:
    """As long as somebody does, others know; and no longer."""
    master, terminal = pty.openpty()

    def take() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    argv = [sys.executable, "-c", LOCKS]
    with spawned(
        argv, cwd=ROOT, stdin=terminal, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=take
    ) as process:
        assert process.stdout is not None
        said = []
        for _ in range(2):
            said.append(process.stdout.readline())
            os.write(master, b"go on\n")
        assert said == ["True\n", "False False\n"]
        process.wait(20)
    os.close(terminal)
    os.close(master)
