"""Coroutine tests, the descriptors that a test must not leave open, and time for those that are waited for."""

from __future__ import annotations

import pytest

from stillup.daemon.control import control_server, interim_handover, peer_identities
from stillup.daemon.state import figures_store, listener_files, writer_thread
from tests.asgi.event_loops import loop_factory, pytest_itemcollected, pytest_pyfunc_call
from tests.host.conftest import first_loop, no_leak

__all__ = ["first_loop", "loop_factory", "no_leak", "pytest_itemcollected", "pytest_pyfunc_call"]

LONG = 30.0
"""Seconds that a thread, a disk, a client or another process gets where it is not its time that is tested."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the supervisor wait for as long as it takes; a test of a wait that ends says how long that is."""
    for module in (figures_store, interim_handover, listener_files, peer_identities, writer_thread):
        monkeypatch.setattr(module, "PATIENCE", LONG)
    monkeypatch.setattr(figures_store, "ANSWER_PATIENCE", LONG)
    monkeypatch.setattr(control_server, "LAST_ANSWERS", LONG)
