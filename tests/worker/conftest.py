"""Coroutine tests, the loops and parsers that a worker can run with, and the descriptors that must not be left open."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillup.worker import gc_pause
from tests.asgi.conftest import http
from tests.asgi.event_loops import loop_factory, pytest_itemcollected, pytest_pyfunc_call
from tests.host.conftest import first_loop, no_leak

__all__ = ["first_loop", "http", "loop_factory", "no_leak", "pytest_itemcollected", "pytest_pyfunc_call"]

_FROZEN = SimpleNamespace(**vars(gc) | {"get_freeze_count": lambda: gc_pause._frozen_at_start + 1})


@pytest.fixture(autouse=True)
def _nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a drain know that something is frozen (tests/conftest.py) without going through a million objects for it."""
    monkeypatch.setattr(gc_pause, "gc", _FROZEN)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the supervisor listens."""
    return str(tmp_path / "handoff.sock")
