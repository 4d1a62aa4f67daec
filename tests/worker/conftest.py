"""Coroutine tests, the loops and parsers that a worker can run with, and the descriptors that must not be left open."""

from __future__ import annotations

from tests.asgi.conftest import http
from tests.asgi.running import loop_factory, pytest_itemcollected, pytest_pyfunc_call
from tests.host.conftest import first_loop, no_leak

__all__ = ["first_loop", "http", "loop_factory", "no_leak", "pytest_itemcollected", "pytest_pyfunc_call"]
