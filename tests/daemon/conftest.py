"""Coroutine tests, and the descriptors that a test must not leave open."""

from __future__ import annotations

from tests.asgi.running import loop_factory, pytest_itemcollected, pytest_pyfunc_call
from tests.host.conftest import first_loop, no_leak

__all__ = ["first_loop", "loop_factory", "no_leak", "pytest_itemcollected", "pytest_pyfunc_call"]
