"""Which threads keep a process that has finished."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from stillup.core.worker_figures import THREADS_LIMIT
from stillup.worker import lasting_threads


def _running(stack: ExitStack, name: str, *, daemon: bool = False) -> None:
    """A thread that waits until the stack is left."""
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait()

    thread = threading.Thread(target=work, name=name, daemon=daemon)
    thread.start()
    stack.callback(thread.join)
    stack.callback(go.set)
    assert begun.wait(10)


def test_none() -> None:
    """A daemon keeps nobody."""
    before = lasting_threads.lasting_threads()
    with ExitStack() as stack:
        _running(stack, "daemon", daemon=True)
        assert "daemon" not in lasting_threads.lasting_threads()
    assert lasting_threads.lasting_threads() == before


def test_names_and_places() -> None:
    """Each by its name, with the line of the app's that it is in, and not that of Python's own wait."""
    with ExitStack() as stack:
        _running(stack, "poll")
        assert "poll (test_lasting_threads.py:" in lasting_threads.lasting_threads()


def test_many() -> None:
    """A few are named, the others counted."""
    with ExitStack() as stack:
        for number in range(20):
            _running(stack, f"poll {number}")
        told = lasting_threads.lasting_threads()
    assert told.count("poll") <= lasting_threads.MOST
    assert " more" in told
    assert len(told) < THREADS_LIMIT


def test_who_ends_soon_is_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is told once, after a moment; of nothing if nothing is left by then."""
    monkeypatch.setattr(lasting_threads, "PATIENCE", 0.05)
    told: list[str] = []
    called = threading.Event()

    def tell(names: str) -> None:
        told.append(names)
        called.set()

    with ExitStack() as stack:
        _running(stack, "poll")
        lasting_threads.tell_of_them(tell)
        assert called.wait(10)
    assert len(told) == 1
    assert "poll" in told[0]
