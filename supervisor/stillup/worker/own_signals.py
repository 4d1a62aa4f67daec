"""What the signals of a worker's process do, from its start until its event loop runs."""

from __future__ import annotations

import faulthandler
import signal

from stillup.host.processes import DUMP_STACKS, HANDLED


def take() -> None:
    """Only SIGTERM is ours; the rest is for the supervisor, though a terminal or an operator may send it to all.

    They get a handler that does nothing rather than SIG_IGN, which the app's own children would inherit.
    """
    # Written by the handler itself, in C: it works while the interpreter is busy or waits for a system call.
    faulthandler.register(DUMP_STACKS, all_threads=True)
    for number in HANDLED - {signal.SIGTERM}:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
