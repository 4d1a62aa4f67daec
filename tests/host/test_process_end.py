"""How our programs end, in programs of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading
from stillup.host import process_end, standard_streams

class Last:
    def __del__(self):
        print("taken apart")

last = Last()
atexit.register(standard_streams.flush)
atexit.register(print, "registered")
threading.Thread(target=lambda: (threading.main_thread().join(), print("thread"))).start()
threading.Thread(target=threading.Event().wait, daemon=True).start()
process_end.leave(7)
"""


def test_it_ends_as_one_that_returns() -> None:
    """Threads are waited for, but for daemons; then what is registered runs, the first last; nothing is taken apart."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("thread\nregistered\n", "", 7)


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("no-such-command", 2)])
def test_a_command_ends_so(word: str, code: int) -> None:
    """What was written has left, and the exit code is its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "stillup", word], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == code
    assert "stillup" in (ended.stderr if code else ended.stdout)
