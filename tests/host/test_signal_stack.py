"""Signals that come at the same instant."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

MANY = 14
"""More than a supervisor or a worker has handlers for."""


def test_many_at_once_fit() -> None:
    """Signals that waited are delivered nested, and leave the heap around faulthandler's own stack alone."""
    code = f"""
        import faulthandler, gc, os, signal
        from stillup.host import signal_stack

        faulthandler.enable()
        signal_stack.widen()
        seen = []
        numbers = [signal.SIGRTMIN + place for place in range({MANY})]
        for number in numbers:
            signal.signal(number, lambda number, _: seen.append(number))
        around = [dict.fromkeys(map(str, range(40))) for _ in range(2000)]
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        gc.collect()
        assert sorted(seen) == numbers
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
