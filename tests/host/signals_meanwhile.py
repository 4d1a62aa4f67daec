"""Signals that interrupt whatever the main thread waits for, as a stop or a freeze does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def signals_meanwhile(heard: Callable[[], object]) -> Iterator[None]:
    """Fifty times a second; ``heard`` is called in the main thread, in which this is."""
    before = signal.signal(signal.SIGUSR2, lambda *_: heard())
    enough = threading.Event()

    def interrupt() -> None:
        while not enough.wait(0.02):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
        signal.signal(signal.SIGUSR2, before)
